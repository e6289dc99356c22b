"""Positions of Qwen-VL: an image's tokens have rows and columns (M-RoPE, Wang et al. 2024,
Qwen2-VL).
"""

import torch
from torch import Tensor

MODELS = ("qwen2_vl", "qwen2_5_vl")


def token_grid(rows: int, columns: int) -> Tensor:
    """Row and column of each token of an image, row after row (rows*columns 2) int64."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def grid_positions(grid: Tensor) -> Tensor:
    """Rows and columns (S L 2), -1 of words -> positions in time, rows and columns (3 S L) int64.

    A word is at one position in all three, an image's first token too. The others lie as many
    positions behind as their rows and columns say, and what follows the image stands behind the
    largest of them. A token of row and column 0 begins an image, so cameras may follow one another.
    """
    row, column = grid.unbind(-1)
    is_word = row < 0
    # Counted over an image this makes rows + columns - the shorter of both, which is the longer.
    steps = torch.where(
        is_word, 1, (row == 0).long() + (column == 0).long() - (row == column).long()
    )
    before = steps.cumsum(dim=1) - steps  # of all that stands before a token
    begins = is_word | ((row == 0) & (column == 0))
    start = torch.where(begins, before, 0).cummax(dim=1).values
    return torch.stack([start, start + row.clamp(min=0), start + column.clamp(min=0)])
