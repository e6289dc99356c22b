"""Chooses a few of many episodes or frames, where looking at all would take too long."""

import numpy as np


def spread_evenly(length: int, count: int) -> list[int]:
    """Return at most `count` rising indices below `length`, the first and the last among them.

    Of a single one, it is the first.
    """
    indices = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    return list(np.unique(indices).tolist())
