"""A pre-norm transformer decoder with a choice of norm, activation, positions and attention."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import (
    Backbone,
    ConfigError,
    LayerSpec,
    Memory,
    Register,
    TokenSequence,
    attend,
    attention_mask,
    hookimpl,
    make_memory,
    token_positions,
)
from core.weights import carry_rows


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of the network; the recipe's action tokens decide which token attends to which."""

    width: Annotated[int, Gt(0)] = 192
    """width of every token (D)."""
    depth: Annotated[int, Gt(0)] = 6
    """number of blocks."""
    heads: Annotated[int, Gt(0)] = 6
    """number of attention heads per block; must be a divisor of the width."""
    mlp_ratio: Annotated[float, Gt(0)] = 4.0
    """hidden width of the MLP as a multiple of `width`; "swiglu" uses only two thirds of this
    hidden width, so that the MLP has as many weights as with "gelu".
    """
    norm: Literal["rms", "layer"] = "rms"
    """"rms" (Zhang and Sennrich 2019) or "layer"."""
    norm_eps: Annotated[float, Gt(0)] | None = None
    """number that every norm adds to the mean square or variance; default: PyTorch's."""
    activation: Literal["swiglu", "gelu", "gelu_tanh"] = "swiglu"
    """"swiglu" (Shazeer 2020), "gelu", or "gelu_tanh", the approximation of GPT-2 and JAX."""
    bias: bool = False
    """whether the linear layers of attention and MLP have biases."""
    positions: Literal["rotary", "learned", "none"] = "rotary"
    """"rotary" (Su et al. 2021; any length), "learned" (at most `max_tokens` positions), or "none",
    for action tokens that add positions of their own.
    """
    max_tokens: Annotated[int, Gt(0)] = 1024
    """number of learned positions; no effect with other positions."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """dropout probability of attention weights, the first block's input, and the outputs of every
    attention and MLP.
    """

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(
                f"heads = {self.heads} does not divide width = {self.width}; choose a divisor"
            )
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                "rotary positions turn pairs, and width / heads = "
                f"{self.width // self.heads} is odd; choose an even quotient or "
                'positions = "learned"'
            )


@dataclass(frozen=True)
class AttentionInputs:
    """The attention mask and the rotary angles that all blocks use in one forward pass."""

    # (S 1 L P+L) bool, True where the token of a row may attend to the token of a column; None if
    # the attention is causal
    mask: Tensor | None
    rotation: tuple[Tensor, Tensor] | None  # cosine and sine (S 1 L d/2), float32


class Transformer(Backbone):
    """Pre-norm decoder: blocks of attention and MLP, and a final norm."""

    offers = frozenset({"keys_values", "hidden_states", "extend"})

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.head_width = config.width // config.heads
        self.layer_spec = LayerSpec(config.depth, config.heads, config.heads, self.head_width)
        table = torch.randn(config.max_tokens, config.width) * 0.02
        self.positions = nn.Parameter(table) if config.positions == "learned" else None
        self.rotary = config.positions == "rotary"
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = _build_norm(config)
        # Weights are drawn from a normal distribution, as in GPT-2. The layers whose output is
        # added to the residual stream get smaller weights, so that the stream does not grow with
        # the number of blocks.
        for name, weight in self.blocks.named_parameters():
            if weight.ndim == 2:
                adds = name.endswith("output.weight")
                nn.init.normal_(weight, std=0.02 / (2 * config.depth) ** 0.5 if adds else 0.02)

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """Take the first learned positions, if `max_tokens` differs; further ones stay random."""
        adapted = dict(tensors)
        if self.positions is not None and "positions" in tensors:
            adapted["positions"] = carry_rows(self.positions, tensors["positions"])
        return adapted

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states (S L width).

        Raises ConfigError if the sequence reaches beyond the last learned position.
        """
        x, inputs = self._begin(sequence, None)
        # `remember` would give the same hidden states. It is not called here, because it keeps the
        # keys and values of all blocks in memory.
        for block in self.blocks:
            x, _, _ = block(x, inputs)
        return self.norm(x)  # type: ignore[no-any-return]

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """(S L width) -> hidden states, keys and values of every block.

        Raises ConfigError if the sequence reaches beyond the last learned position.
        """
        x, inputs = self._begin(sequence, past)
        hidden_states, keys, values = [x], [], []
        for i, block in enumerate(self.blocks):
            past_of_block = None if past is None else (past.keys[i], past.values[i])
            x, k, v = block(x, inputs, past_of_block)
            hidden_states.append(x)
            keys.append(k)
            values.append(v)
        return make_memory(sequence, self.norm(x), keys, values, hidden_states, past)

    def _begin(
        self, sequence: TokenSequence, past: Memory | None
    ) -> tuple[Tensor, AttentionInputs]:
        """Return the first block's input (S L D), and the attention inputs of all blocks."""
        before = None if past is None else past.sequence
        position, x = token_positions(sequence, before), sequence.tokens
        if self.positions is not None:
            length = x.shape[1] + (0 if past is None else past.tokens.shape[1])
            x = x + self._learned_positions(position, length)
        rotation = rotary_angles(position, self.head_width) if self.rotary else None
        return self.dropout(x), AttentionInputs(attention_mask(sequence, before), rotation)

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate queries or keys (S heads n d) at positions (S n) if positions are rotary."""
        return rotate(x, rotary_angles(position, self.head_width)) if self.rotary else x

    def _learned_positions(self, position: Tensor, length: int) -> Tensor:
        """Look up positions (S L); `length` is the number of tokens of a sequence with its past.

        Private tokens share positions, so a sequence may have more tokens than there are learned
        positions. The largest position is read only for such a sequence, because reading it waits
        for the device.
        """
        assert self.positions is not None
        if length > len(self.positions) and int(position.max()) >= len(self.positions):
            raise ConfigError(
                f"backbone.max_tokens: a sequence reaches position {int(position.max())} and the "
                f"learned positions end at {len(self.positions) - 1}; raise backbone.max_tokens"
            )
        return self.positions[position]


class Block(nn.Module):
    """Attention, then an MLP; each reads the normed stream and adds its output to the stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = _build_norm(config)
        self.attention = SelfAttention(config)
        self.mlp_norm = _build_norm(config)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, inputs: AttentionInputs, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(S L D) -> (S L D), and the keys and values (S K P+L d) of earlier and present tokens.

        past: the keys and the values (S K P d) of the earlier tokens.
        """
        mixed, keys, values = self.attention(self.attention_norm(x), inputs, past)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.mlp_norm(x))), keys, values


class SelfAttention(nn.Module):
    """Multi-head attention, including the projections of its inputs and outputs."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.output = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self, x: Tensor, inputs: AttentionInputs, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend; the arguments and results have the same shapes as those of `Block.forward`."""
        q, k, v = rearrange(self.qkv(x), "s l (three h d) -> three s h l d", three=3, h=self.heads)
        if inputs.rotation is not None:
            q, k = rotate(q, inputs.rotation), rotate(k, inputs.rotation)
        dropout = self.dropout if self.training else 0.0
        mixed, keys, values = attend(q, k, v, inputs.mask, past=past, dropout=dropout)
        return self.output(mixed), keys, values


class MLP(nn.Module):
    """A two-layer MLP; with "swiglu", a gate with SiLU multiplies the hidden layer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        hidden = round(config.width * config.mlp_ratio * (2 / 3 if self.gated else 1))
        inputs = 2 * hidden if self.gated else hidden
        self.input = nn.Linear(config.width, inputs, bias=config.bias)
        self.output = nn.Linear(hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(S L D) -> (S L D)."""
        x = self.input(x)
        if self.gated:
            gate, value = x.chunk(2, dim=-1)
            return self.output(F.silu(gate) * value)  # type: ignore[no-any-return]
        return self.output(F.gelu(x, approximate=self.approximate))  # type: ignore[no-any-return]


def rotary_angles(position: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine (S 1 L d/2) of the rotary angles at positions (S L), in float32.

    The angles are never computed in bfloat16, which rounds position 257 to 256. If all sequences
    share one row of positions, the cosine and sine have only one row (1 1 L d/2).
    """
    if position.stride(0) == 0:
        position = position[:1]
    pairs = head_width // 2
    frequency = 10_000.0 ** -(
        torch.arange(pairs, dtype=torch.float32, device=position.device) / pairs
    )
    angle = position[:, None, :, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each pair (i, i + d/2) of x (S heads L d) by its angle at the token's position.

    The rotation is computed in float32, and the result is converted to the dtype of x.
    """
    cosine, sine = rotation  # (S 1 L d/2)
    first, second = x.float().chunk(2, dim=-1)
    result = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return result.to(x.dtype)


def _build_norm(config: TransformerConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps or 1e-5)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register "transformer"."""
    register("transformer", TransformerConfig, Transformer)
