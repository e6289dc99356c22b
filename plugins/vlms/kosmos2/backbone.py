"""Kosmos-2's language model: the Magneto decoder, with a norm inside attention and MLP, and sinusoidal positions."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from core import Backbone, Pretrained, TokenSequence
from plugins.vlms.kosmos2.names import BACKBONE_NAMES, SOURCE, backbone_share

FIRST_POSITION = 2  # of a sequence's first token; 1 stands for padding, after fairseq


@dataclass(frozen=True)
class Kosmos2BackboneConfig:
    """The sizes of the decoder; the defaults are Kosmos-2's.

    width: of every token (D).
    depth: number of layers.
    heads: attention heads per layer; they divide the width.
    mlp_width: of the MLP's hidden layer.
    dropout: on the embedded tokens and on what each layer adds while training, a probability.
    attention_dropout: on the attention while training, a probability.
    gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
    """

    width: Annotated[int, Gt(2)] = 2048
    depth: Annotated[int, Gt(0)] = 24
    heads: Annotated[int, Gt(0)] = 32
    mlp_width: Annotated[int, Gt(0)] = 8192
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    attention_dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")


class Kosmos2Backbone(Backbone):
    """Causal decoder after Magneto (Wang et al. 2022), as in Kosmos-2.

    All that comes in - words, image tokens, action tokens - is scaled by sqrt(width), and so is RoboVLMs' [LRN].
    `pretrained` takes Kosmos-2's weights as Hugging Face publishes them, or a RoboVLMs .ckpt.
    """

    source = SOURCE

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        for name, weight in self.layers.named_parameters():
            if name.endswith("_proj.weight") or (".fc" in name and name.endswith(".weight")):
                nn.init.normal_(weight, std=0.02)

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states (S L width). Real tokens stand first, so causality hides the padding."""
        x = self._embed(sequence.tokens)
        for layer in self.layers:
            x = self._run(layer, x)
        return self.norm(x)  # type: ignore[no-any-return]

    def read(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states of the action tokens (B T Q width): the last layer computes no others."""
        x = self._embed(sequence.tokens)
        *layers, last = self.layers
        for layer in layers:
            x = self._run(layer, x)
        columns = sequence.readout.view(len(x), -1) % x.shape[1]  # (S R)
        readout: Tensor = self.norm(self._run(last, x, columns))
        return readout.view(*sequence.readout.shape, self.width)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = tokens * math.sqrt(self.width)
        embedded: Tensor = self.dropout(x + sinusoids(x.shape[1], self.width, x.device).to(x.dtype))
        return embedded

    def _run(self, layer: nn.Module, x: Tensor, columns: Tensor | None = None) -> Tensor:
        if self.config.gradient_checkpointing and self.training:
            return checkpoint(layer, x, columns, use_reentrant=False)  # type: ignore[no-any-return]
        return layer(x, columns)  # type: ignore[no-any-return]

    def load_pretrained(self, weights: Pretrained) -> None:
        """Take the decoder's weights, strictly."""
        BACKBONE_NAMES.load(self, backbone_share(weights), weights.source)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as Hugging Face does."""
        return BACKBONE_NAMES.publish(self.state_dict())

    def describe(self) -> dict[str, Any]:
        """Kosmos2Config's share: the sizes in text_config."""
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
    """Attention, then MLP, each on the normed stream and added to it."""

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """(S L D) -> (S L D), or (S R D) of the tokens at `columns` (S R) alone."""
        mixed = self.attention(self.attention_norm(x), columns)
        x = _at(x, columns) + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Causal multi-head attention whose output is normed before it is projected."""

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """(S L D) -> (S L D), or (S R D) of the tokens at `columns` (S R) alone."""
        q, k, v = (
            rearrange(projected, "s l (h d) -> s h l d", h=self.heads)
            for projected in (self.q_proj(_at(x, columns)), self.k_proj(x), self.v_proj(x))
        )
        dropout = self.dropout if self.training else 0.0
        seen = None if columns is None else torch.arange(x.shape[1], device=x.device) <= columns[:, None, :, None]
        mixed = F.scaled_dot_product_attention(q, k, v, seen, dropout, is_causal=seen is None)
        return self.out_proj(self.norm(rearrange(mixed, "s h l d -> s l (h d)")))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two-layer MLP with a norm behind its GELU."""

    def __init__(self, config: Kosmos2BackboneConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.norm = nn.LayerNorm(config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(S L D) -> (S L D)."""
        return self.fc2(self.norm(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


def _at(x: Tensor, columns: Tensor | None) -> Tensor:
    """(S L D) -> (S R D): the tokens at `columns` (S R), or all."""
    return x if columns is None else x.take_along_dim(columns[..., None], dim=1)


def sinusoids(length: int, width: int, where: torch.device) -> Tensor:
    """Positions (L D), float32: sines of falling frequencies, then their cosines (Vaswani et al. 2017)."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=where, dtype=torch.float32) * -(math.log(10_000) / (half - 1)))
    position = torch.arange(FIRST_POSITION, FIRST_POSITION + length, device=where, dtype=torch.float32)
    angle = torch.outer(position, frequency)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
