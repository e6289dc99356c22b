"""Positions of Qwen-VL, where an image's tokens have rows and columns.

These are the positions of M-RoPE (Wang et al. 2024, Qwen2-VL).
"""

import torch
from torch import Tensor

MODELS = ("qwen2_vl", "qwen2_5_vl")


def token_grid(rows: int, columns: int) -> Tensor:
    """Return the row and column of each token of an image (rows*columns 2) int64, row after row."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def grid_positions(grid: Tensor) -> Tensor:
    """Return the position of each token on three axes: time, row and column (3 S L) int64.

    A word has the same position on all three axes. The first token of an image also has the same
    position on all three axes. The position of another token of the image is that of the first
    token, plus the token's row on the row axis and the token's column on the column axis. The
    position of the token after an image is the largest position in the image plus 1. A token at row
    0, column 0 is taken as the start of a new image, so images may stand back to back without a
    word between them.

    grid: row and column of each token in its image (S L 2); -1 for words.
    """
    row, column = grid.unbind(-1)
    is_word = row < 0
    # The steps of an image's tokens add up to columns + rows - shorter side. This is the image's
    # longer side.
    steps = torch.where(
        is_word, 1, (row == 0).long() + (column == 0).long() - (row == column).long()
    )
    before = steps.cumsum(dim=1) - steps  # sum of the steps of all earlier tokens
    begins = is_word | ((row == 0) & (column == 0))
    start = torch.where(begins, before, 0).cummax(dim=1).values
    return torch.stack([start, start + row.clamp(min=0), start + column.clamp(min=0)])
