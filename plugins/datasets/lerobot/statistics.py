"""LeRobot's statistics of each feature, per episode and for the whole dataset."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from core import import_optional
from core.episodes import Statistics

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
# minimum number of rows in a block, except in the last block
ROWS = 65_536
# number of blocks at which all blocks are merged into one block
BLOCKS = 64

# {statistic: list with one value per dimension of the feature}; the list of "count" has one value
Summary = dict[str, list[Any]]


def summarise(statistics: Statistics, first: int, stop: int) -> Summary:
    """Return LeRobot's ten statistics of the columns first..stop-1."""
    columns = {
        "min": statistics.min,
        "max": statistics.max,
        "mean": statistics.mean,
        "std": statistics.std,
    }
    columns |= {name: statistics.quantile(q) for name, q in QUANTILES.items()}
    summary = {name: column[first:stop].tolist() for name, column in columns.items()}
    return summary | {"count": [statistics.count]}


class RunningStatistics:
    """Statistics of a growing number of rows, in little memory.

    For at most ROWS rows, the statistics are exact. More rows are split into blocks of at least
    ROWS rows (the last block may have fewer), and the blocks' statistics are merged.
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []  # rows that are not yet in a block
        self._blocks: list[Statistics] = []

    def add(self, rows: np.ndarray) -> None:
        """Add rows (n D)."""
        self._rows.append(rows)
        if sum(map(len, self._rows)) >= ROWS:
            self._blocks = self.all_blocks()
            self._rows = []
        if len(self._blocks) == BLOCKS:
            self._blocks = [Statistics.merge(self._blocks)]

    def all_blocks(self) -> list[Statistics]:
        """Return all blocks' statistics; rows that are not yet in a block form the last block."""
        if not self._rows:
            return self._blocks
        return [*self._blocks, Statistics.of(np.concatenate(self._rows))]

    def statistics(self) -> Statistics:
        """Return the statistics of all rows; there must be at least one row."""
        return Statistics.merge(self.all_blocks())


@dataclass(frozen=True)
class Histogram:
    """How often each value occurs in each channel of a camera's frames.

    frames: number of frames whose values were counted.
    counts: number of occurrences of each value 0..255 in each channel (3 256) int64.
    """

    frames: int
    counts: np.ndarray

    @classmethod
    def of(cls, frames: np.ndarray) -> "Histogram":
        """Count the values of frames (n Y X 3) uint8."""
        image = import_optional("PIL.Image")
        counts = sum(np.array(image.fromarray(frame).histogram(), np.int64) for frame in frames)
        return cls(len(frames), np.reshape(counts, (3, 256)))

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(self.frames + other.frames, self.counts + other.counts)

    def summary(self) -> Summary:
        """Return LeRobot's ten statistics of the values, which are scaled from 0..255 to [0, 1].

        Each has the shape (3 1 1), except "count": it is the number of frames.
        """
        values, total = np.arange(256) / 255, self.counts.sum(axis=1)
        mean = self.counts @ values / total
        variance = np.sum(self.counts * np.square(values - mean[:, None]), axis=1) / total
        columns = {}
        cumulative = np.cumsum(self.counts, axis=1)
        ranks: dict[str, Any] = {"min": 1, "max": total}
        ranks |= {name: np.maximum(np.ceil(q * total), 1) for name, q in QUANTILES.items()}
        for name, rank in ranks.items():
            columns[name] = np.argmax(cumulative >= np.reshape(rank, (-1, 1)), axis=1) / 255
        columns |= {"mean": mean, "std": np.sqrt(variance)}
        summary = {name: column.reshape(3, 1, 1).tolist() for name, column in columns.items()}
        return summary | {"count": [self.frames]}
