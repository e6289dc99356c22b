"""Kosmos-2's language model, the Magneto decoder.

It has norms inside attention and MLP, and sinusoidal positions.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import (
    Backbone,
    LayerSpec,
    Memory,
    TokenSequence,
    attend,
    attention_mask,
    make_memory,
    token_positions,
)
from core.weights import Pretrained
from plugins.vlms.kosmos2.names import BACKBONE_NAMES, SOURCE, backbone_tensors, robovlms_names

FIRST_POSITION = 2  # position of a sequence's first token; as in fairseq, position 1 is for padding


@dataclass(frozen=True)
class Kosmos2BackboneConfig:
    """The sizes of the decoder; the defaults are Kosmos-2's."""

    width: Annotated[int, Gt(2)] = 2048
    """width of every token (D)."""
    depth: Annotated[int, Gt(0)] = 24
    """number of layers."""
    heads: Annotated[int, Gt(0)] = 32
    """number of attention heads per layer; the width must be a multiple of this number."""
    mlp_width: Annotated[int, Gt(0)] = 8192
    """width of the MLP's hidden layer."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """probability of dropout while training, on the embedded tokens, and on the outputs of
    attention and of MLP in each layer.
    """
    attention_dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """probability of dropout on the attention weights while training."""

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"width {self.width} must be even and a multiple of heads {self.heads}"
            )


class Kosmos2Backbone(Backbone):
    """Decoder after Magneto (Wang et al. 2022), as in Kosmos-2.

    It multiplies all embeddings by sqrt(width): those of words, image tokens and, as in RoboVLMs,
    action tokens. `pretrained` takes Kosmos-2's weights as Hugging Face publishes them, or a
    RoboVLMs .ckpt.
    """

    source = SOURCE
    offers = frozenset({"keys_values", "hidden_states", "extend"})

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.layer_spec = LayerSpec(
            config.depth, config.heads, config.heads, config.width // config.heads
        )
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        for name, weight in self.layers.named_parameters():
            if name.endswith("_proj.weight") or (".fc" in name and name.endswith(".weight")):
                nn.init.normal_(weight, std=0.02)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, as a property: an attribute would put them into the state dict twice."""
        return self.layers

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states (S L width)."""
        x, mask = self._begin(sequence)
        for layer in self.layers:
            x, _, _ = layer(x, mask)
        return self.norm(x)  # type: ignore[no-any-return]

    def read(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states of the action tokens (B T Q width).

        The last layer computes its outputs for the action tokens alone.
        """
        x, mask = self._begin(sequence)
        *layers, last = self.layers
        for layer in layers:
            x, _, _ = layer(x, mask)
        count, length = x.shape[:2]
        columns = sequence.readout.view(count, -1) % length  # (S R)
        x, _, _ = last(x, _mask_rows(mask, columns, length), columns)
        readout: Tensor = self.norm(x)
        return readout.view(*sequence.readout.shape, self.width)

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """(S L width) -> normed hidden states; hidden states, keys and values of every layer."""
        x, mask = self._begin(sequence, past)
        hidden_states, keys, values = [x], [], []
        for i, layer in enumerate(self.layers):
            past_of_layer = None if past is None else (past.keys[i], past.values[i])
            x, k, v = layer(x, mask, past=past_of_layer)
            hidden_states.append(x)
            keys.append(k)
            values.append(v)
        return make_memory(sequence, self.norm(x), keys, values, hidden_states, past)

    def _begin(
        self, sequence: TokenSequence, past: Memory | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the inputs of the first layer (S L D), and the attention mask (S 1 L P+L)."""
        before = None if past is None else past.sequence
        position = token_positions(sequence, before)
        x = sequence.tokens * math.sqrt(self.width)
        inputs: Tensor = self.dropout(x + sinusoids(position, self.width).to(x.dtype))
        return inputs, attention_mask(sequence, before)

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the decoder's weights, strictly."""
        BACKBONE_NAMES.load(self, backbone_tensors(weights), weights.source)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as Hugging Face does."""
        return BACKBONE_NAMES.publish(self.state_dict())

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return robovlms_names(self.publish())

    def describe(self) -> dict[str, Any]:
        """Return the part of Kosmos2Config for the backbone: the sizes in text_config."""
        config = self.config
        text = {
            "embed_dim": config.width,
            "layers": config.depth,
            "attention_heads": config.heads,
            "ffn_dim": config.mlp_width,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
        }
        return {"text_config": text}


class Layer(nn.Module):
    """A pre-norm layer: attention, then MLP, each with a residual connection."""

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        columns: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(S L D) -> (S L D), and keys and values of all tokens (S K P+L d).

        mask: (S 1 L P+L) bool, or (S 1 R L) with `columns`; None: causal attention.
        columns: indices of the tokens to compute (S R); the result is then (S R D). None: all
            tokens.
        past: keys and values of the earlier tokens (S K P d).
        """
        mixed, keys, values = self.attention(self.attention_norm(x), mask, columns, past)
        x = _take(x, columns) + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.mlp_norm(x))), keys, values


class Attention(nn.Module):
    """Multi-head attention whose output is normed before it is projected."""

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        columns: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend; arguments and results are those of `Layer.forward`."""
        q, k, v = (
            rearrange(projected, "s l (h d) -> s h l d", h=self.heads)
            for projected in (self.q_proj(_take(x, columns)), self.k_proj(x), self.v_proj(x))
        )
        dropout = self.dropout if self.training else 0.0
        mixed, keys, values = attend(q, k, v, mask, past=past, dropout=dropout)
        return self.out_proj(self.norm(mixed)), keys, values


class MLP(nn.Module):
    """Two-layer MLP with a norm after its GELU."""

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.norm = nn.LayerNorm(config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(S L D) -> (S L D)."""
        return self.fc2(self.norm(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


def _take(x: Tensor, columns: Tensor | None) -> Tensor:
    """Return the tokens of x (S L D) at `columns` (S R) -> (S R D); None: all tokens."""
    return x if columns is None else x.take_along_dim(columns[..., None], dim=1)


def _mask_rows(mask: Tensor | None, columns: Tensor, length: int) -> Tensor:
    """Return the rows of a mask for the tokens at `columns` (S R) -> (S 1 R L).

    mask: (S 1 L L); None: causal.
    """
    if mask is None:
        return torch.arange(length, device=columns.device) <= columns[:, None, :, None]
    return mask.take_along_dim(columns[:, None, :, None], dim=2)


def sinusoids(position: Tensor, width: int) -> Tensor:
    """Return the sinusoidal embeddings of positions (S L) -> (S L D) float32.

    As in fairseq, the frequencies fall from 1 to exactly 1/10000, and all sines stand before all
    cosines. If all sequences share one row of positions, the result is (1 L D).
    """
    if position.stride(0) == 0:  # all sequences share one row of positions
        position = position[:1]
    half = width // 2
    index = torch.arange(half, device=position.device, dtype=torch.float32)
    frequency = torch.exp(index * -(math.log(10_000) / (half - 1)))
    angle = (position + FIRST_POSITION).float()[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
