"""Layers of the denoisers: norms and residual branches that a condition steers, and attention."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from plugins.heads.denoising.denoising import EncodeTime


class TimeEmbedding(nn.Module):
    """Features of the time, and a two-layer MLP over them."""

    def __init__(self, encode: EncodeTime, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.encode, self.width = encode, width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))

    def forward(self, time: Tensor) -> Tensor:
        """Times (...) -> (... width)."""
        features = self.encode(time, self.width).to(next(self.parameters()).dtype)
        return self.mlp(features)  # type: ignore[no-any-return]


class Norm(nn.Module):
    """A norm with learned weights, or one that a condition scales and shifts.

    An adaptive norm also gives a gate for what is made of its result: adaLN of DiT (Peebles and Xie
    2023); with `kind = "rms"`, the adaptive norm of pi0.5. Scale, shift and gate begin small, so
    that every residual branch begins as almost nothing. There they begin as zeros; but then the
    first step would give no gradient to what the condition is made of, such as the backbone.

    gated: whether there is a gate.
    """

    def __init__(self, width: int, kind: str, *, adaptive: bool, gated: bool = True) -> None:
        super().__init__()
        self.norm = (
            nn.RMSNorm(width, eps=1e-6, elementwise_affine=not adaptive)
            if kind == "rms"
            else nn.LayerNorm(width, elementwise_affine=not adaptive)
        )
        self.gated = gated
        self.modulation = nn.Linear(width, (3 if gated else 2) * width) if adaptive else None
        if self.modulation is not None:
            nn.init.normal_(self.modulation.weight, std=0.02)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """X (... n width), condition (... 1 width) -> the normed x, and the gate (... 1 width)."""
        normed: Tensor = self.norm(x)
        if self.modulation is None:
            return normed, 1.0
        scale, shift, *gates = self.modulation(condition).chunk(3 if self.gated else 2, dim=-1)
        return normed * (1 + scale) + shift, gates[0] if gates else 1.0


class Residual(nn.Module):
    """Adds to a stream of tokens what a layer makes of the normed stream."""

    def __init__(self, layer: nn.Module, width: int, kind: str, *, adaptive: bool) -> None:
        super().__init__()
        self.norm = Norm(width, kind, adaptive=adaptive)
        self.layer = layer

    def forward(self, x: Tensor, condition: Tensor | None, *inputs: Any) -> Tensor:
        """X (... n width), condition (... 1 width) or None; the layer also gets `inputs`."""
        normed, gate = self.norm(x, condition)
        return x + gate * self.layer(normed, *inputs)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head attention among tokens, or of tokens to others; every token sees all of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """X (N n width), others (N m width); None: the tokens themselves -> (N n width)."""
        q = rearrange(self.query(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(
            self.key_value(x if others is None else others),
            "b m (two h d) -> two b h m d",
            two=2,
            h=self.heads,
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.output(rearrange(mixed, "b h n d -> b n (h d)"))  # type: ignore[no-any-return]


def waves(phase: Tensor) -> Tensor:
    """Phases (... n) in radians -> their sines, then their cosines (... 2n), float32."""
    return torch.cat([phase.sin(), phase.cos()], dim=-1).float()
