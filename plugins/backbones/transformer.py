"""A pre-norm transformer decoder with a choice of norm, activation, positions and attention."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from core import Backbone, RecipeError, Register, TokenSequence, hookimpl

Attention = Literal["causal", "prefix", "bidirectional"]


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of the network and what its attention may see; no token ever sees a later frame or padding.

    width: of every token (D).
    depth: number of blocks.
    heads: attention heads per block; they divide the width.
    mlp_ratio: hidden width of the MLP in widths; swiglu takes two thirds of it, for as many weights as gelu.
    norm: "rms" (Zhang and Sennrich 2019) or "layer".
    activation: "swiglu" (Shazeer 2020) or "gelu".
    positions: "rotary" (Su et al. 2021), for any length, or "learned", up to max_tokens.
    max_tokens: longest sequence that learned positions cover; rotary ignores it.
    attention: "causal"; "prefix" lets a frame's observation see itself both ways, not its actions; "bidirectional".
    dropout: on the attention and on what each block adds while training, a probability.
    gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
    """

    width: Annotated[int, Gt(0)] = 192
    depth: Annotated[int, Gt(0)] = 6
    heads: Annotated[int, Gt(0)] = 6
    mlp_ratio: Annotated[float, Gt(0)] = 4.0
    norm: Literal["rms", "layer"] = "rms"
    activation: Literal["swiglu", "gelu"] = "swiglu"
    positions: Literal["rotary", "learned"] = "rotary"
    max_tokens: Annotated[int, Gt(0)] = 1024
    attention: Attention = "causal"
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}; choose a divisor")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"rotary positions turn pairs, and width / heads = {self.width // self.heads} is odd; "
                'choose an even quotient or positions = "learned"'
            )


@dataclass(frozen=True)
class Context:
    """What all blocks share in one pass."""

    causal: bool
    mask: Tensor | None  # (S 1 L L) bool, True where a row's token may see a column's
    rotation: tuple[Tensor, Tensor] | None  # cosine and sine (L d/2), float32


class Transformer(Backbone):
    """Pre-norm decoder: blocks of attention and MLP, and a final norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.head_width = config.width // config.heads
        positions = torch.randn(config.max_tokens, config.width) * 0.02
        self.positions = nn.Parameter(positions) if config.positions == "learned" else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = _norm(config)
        self._initialise()

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states (S L width); RecipeError where learned positions do not reach."""
        x = sequence.tokens
        context = Context(
            causal=self.config.attention == "causal",
            mask=attention_mask(sequence, self.config.attention),
            rotation=rotary_angles(x.shape[1], self.head_width, x.device) if self.positions is None else None,
        )
        if self.positions is not None:
            x = x + self._learned_positions(x.shape[1])
        x = self.dropout(x)
        for block in self.blocks:
            if self.config.gradient_checkpointing and self.training:
                x = checkpoint(block, x, context, use_reentrant=False)
            else:
                x = block(x, context)
        return self.norm(x)  # type: ignore[no-any-return]

    def _learned_positions(self, length: int) -> Tensor:
        assert self.positions is not None
        if length > len(self.positions):
            raise RecipeError(
                f"backbone.max_tokens: a sequence has {length} tokens and the learned positions end at "
                f"{len(self.positions)}; raise backbone.max_tokens"
            )
        return self.positions[:length]

    def _initialise(self) -> None:
        """GPT-2's start: normal weights, and smaller ones where a block adds to the stream, so that depth adds up."""
        for name, weight in self.blocks.named_parameters():
            if weight.ndim == 2:
                added = name.endswith("output.weight")
                nn.init.normal_(weight, std=0.02 / (2 * len(self.blocks)) ** 0.5 if added else 0.02)


class Block(nn.Module):
    """Attention, then MLP, each on the normed stream and added to it."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = SelfAttention(config)
        self.mlp_norm = _norm(config)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(S L D) -> (S L D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), context))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) through PyTorch's fused kernels."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(S L D) -> (S L D)."""
        q, k, v = rearrange(self.qkv(x), "s l (three h d) -> three s h l d", three=3, h=self.heads)
        if context.rotation is not None:
            q, k = rotate(q, context.rotation), rotate(k, context.rotation)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, context.mask, dropout, is_causal=context.causal)
        return self.output(rearrange(x, "s h l d -> s l (h d)"))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two-layer MLP, gated by SiLU for swiglu."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        hidden = round(config.width * config.mlp_ratio * (2 / 3 if self.gated else 1))
        self.input = nn.Linear(config.width, 2 * hidden if self.gated else hidden, bias=False)
        self.output = nn.Linear(hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(S L D) -> (S L D)."""
        x = self.input(x)
        if self.gated:
            gate, value = x.chunk(2, dim=-1)
            return self.output(F.silu(gate) * value)  # type: ignore[no-any-return]
        return self.output(F.gelu(x))  # type: ignore[no-any-return]


def attention_mask(sequence: TokenSequence, attention: Attention) -> Tensor | None:
    """Which token (row) may see which (column) -> (S 1 L L) bool, or None where no mask is needed.

    Causal attention never needs one: real tokens stand first, so none has padding before it, and frames are in order.
    """
    one_frame = sequence.readout.shape[:2].numel() == len(sequence.tokens)  # known without asking the device
    if attention == "causal" or (attention == "bidirectional" and one_frame and sequence.mask is None):
        return None
    row, column = sequence.frame[:, :, None], sequence.frame[:, None, :]  # (S L 1), (S 1 L)
    seen = column <= row
    if attention == "prefix":
        seen = seen & ((column < row) | _prefix(sequence.is_action))
    if sequence.mask is not None:
        seen = seen & sequence.mask[:, None, :]
    return seen.unsqueeze(1)


def _prefix(is_action: Tensor) -> Tensor:
    """Within a frame: all see its observation, its action tokens see the earlier ones among them -> (S L L) bool."""
    length = is_action.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=is_action.device).tril()
    return ~is_action[:, None, :] | (is_action[:, :, None] & earlier)


def rotary_angles(length: int, head_width: int, where: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (L d/2) of each position's angles, in float32: bfloat16 cannot tell position 257 from 256."""
    pairs = head_width // 2
    frequency = 10_000.0 ** -(torch.arange(pairs, device=where) / pairs)
    angle = torch.outer(torch.arange(length, device=where), frequency)  # (L d/2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + d/2) of (S heads L d) by its position's angle, in float32; the type of x is kept."""
    cosine, sine = rotation  # (L d/2)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


def _norm(config: TransformerConfig) -> nn.Module:
    return nn.RMSNorm(config.width) if config.norm == "rms" else nn.LayerNorm(config.width)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register "transformer"."""
    register("transformer", TransformerConfig, Transformer)
