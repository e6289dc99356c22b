"""Positions of Qwen-VL, where an image's tokens have rows and columns.

These are the positions of M-RoPE (Wang et al. 2024, Qwen2-VL).
"""

import torch
from torch import Tensor

MODELS = ("qwen2_vl", "qwen2_5_vl")


def token_grid(rows: int, columns: int) -> Tensor:
    """Return row and column of each token of an image, row after row (rows*columns 2) int64."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def grid_positions(grid: Tensor) -> Tensor:
    """Return the positions of tokens in time, row and column (3 S L) int64.

    A word has the same position on all three axes, and so does the first token of an image. For the
    other tokens of the image, row and column are added to the positions of the first token. The
    token after an image comes right after the largest position in the image. A token at row 0,
    column 0 is taken as the start of a new image, so images may stand back to back without a word
    between them.

    grid: row and column of each token in its image (S L 2); -1 for words.
    """
    row, column = grid.unbind(-1)
    is_word = row < 0
    # The steps of an image add up to rows + columns - shorter side, which is the longer side.
    steps = torch.where(
        is_word, 1, (row == 0).long() + (column == 0).long() - (row == column).long()
    )
    before = steps.cumsum(dim=1) - steps  # sum of the steps of all earlier tokens
    begins = is_word | ((row == 0) & (column == 0))
    start = torch.where(begins, before, 0).cummax(dim=1).values
    return torch.stack([start, start + row.clamp(min=0), start + column.clamp(min=0)])
