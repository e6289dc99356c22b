"""Layers of DETR (Carion et al. 2020), whose positions are added to queries and keys alone.

Norms stand after each sum (post-norm). Modules and weights have the names of torch's transformer
layers, which LeRobot's weights have, too.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """Sizes of a layer.

    width: D, width of the tokens.
    heads: number of attention heads, a divisor of the width.
    mlp_width: width of the hidden layer between two linear layers.
    dropout: probability of dropout of attention weights, hidden layers and outputs.
    """

    width: int
    heads: int
    mlp_width: int
    dropout: float


class Attention(nn.Module):
    """Multi-head attention with separate inputs for queries, keys and values."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.dropout = sizes.heads, sizes.dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * sizes.width, sizes.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * sizes.width))
        self.out_proj = nn.Linear(sizes.width, sizes.width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Query (S R D), key and value (S L D) -> (S R D).

        mask: (S 1 R L) bool, True where a row's query sees a column's key; None: it sees all.
        """
        weights = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (
            rearrange(F.linear(x, *weight), "s l (h d) -> s h l d", h=self.heads)
            for x, weight in zip((query, key, value), weights, strict=True)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return self.out_proj(rearrange(mixed, "s h l d -> s l (h d)"))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Attention among the tokens, then two linear layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn = Attention(sizes)
        self.linear1 = nn.Linear(sizes.width, sizes.mlp_width)
        self.linear2 = nn.Linear(sizes.mlp_width, sizes.width)
        self.norm1, self.norm2 = (nn.LayerNorm(sizes.width) for _ in range(2))
        self.dropout = nn.Dropout(sizes.dropout)
        init_matrices(self)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (S L D) and their positions (S L D) or (L D) -> (S L D).

        mask: (S 1 L L) bool, True where a row's token sees a column's; None: it sees all.
        """
        placed = x + positions
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, mask)))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Attention among the queries, attention to the tokens, then two linear layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = (Attention(sizes) for _ in range(2))
        self.linear1 = nn.Linear(sizes.width, sizes.mlp_width)
        self.linear2 = nn.Linear(sizes.mlp_width, sizes.width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(sizes.width) for _ in range(3))
        self.dropout = nn.Dropout(sizes.dropout)
        init_matrices(self)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        own_mask: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """What the queries hold (S R D) -> what they hold after this layer (S R D).

        positions: (S R D), positions of the queries.
        own_mask: (S 1 R R) bool, which query sees which.
        keys: (S L D), the tokens with their positions; values: (S L D), the tokens alone.
        mask: (S 1 R L) bool, which query sees which token.
        """
        placed = x + positions
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, own_mask)))
        seen = self.multihead_attn(x + positions, keys, values, mask)
        x = self.norm2(x + self.dropout(seen))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(hidden)))  # type: ignore[no-any-return]


def init_matrices(module: nn.Module) -> None:
    """Draw every matrix of a module from Glorot's uniform distribution, as DETR does."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)


def sines(position: Tensor, width: int) -> Tensor:
    """Positions (...) float -> sines and cosines in turn (... width) (Vaswani et al. 2017).

    width: an even number.
    """
    exponent = torch.arange(0, width, 2, device=position.device) / width
    angle = position[..., None] / 10_000 ** exponent.to(position.dtype)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def sines_of_grid(grid: Tensor, width: int) -> Tensor:
    """Places (N 2) of the tokens of several maps -> sines of row and column (N width), float32.

    grid: row and column of each token, map after map; -1 for a token without a place, whose
        result is zero.
    width: a multiple of 4; one half is for the row, the other for the column.

    As in DETR, rows and columns count from 1, and the last one of each map is at 2 pi.
    """
    map_of_token = (grid == 0).all(dim=-1).long().cumsum(0)  # a map begins at row 0, column 0
    index = map_of_token[:, None].expand_as(grid)
    last = grid.new_zeros(len(grid) + 1, 2).scatter_reduce(0, index, grid, "amax")
    angle = 2 * torch.pi * (grid + 1) / (last.gather(0, index) + 1 + 1e-6)
    has_place = (grid >= 0).all(dim=-1, keepdim=True)
    return sines(angle, width // 2).flatten(-2) * has_place
