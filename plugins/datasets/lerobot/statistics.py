"""The ten numbers that LeRobot keeps of each feature, for an episode and for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core import import_optional
from core.episodes import Statistics

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
ROWS = 65_536
BLOCKS = 64  # that wait to be merged

Summary = dict[str, list[Any]]


def summarise(statistics: Statistics, first: int, stop: int) -> Summary:
    """The ten of columns first..stop-1."""
    s = statistics
    columns = {"min": s.min, "max": s.max, "mean": s.mean, "std": s.std}
    columns |= {name: s.quantile(q) for name, q in QUANTILES.items()}
    summary = {name: column[first:stop].tolist() for name, column in columns.items()}
    return summary | {"count": [s.count]}


class Running:
    """Statistics of ever more rows, in little memory: exact up to ROWS, then merged from blocks of
    that many.
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []  # not yet in a block
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
        """The blocks, and one more of the rows that are in none."""
        return (
            [*self._blocks, Statistics.of(np.concatenate(self._rows))]
            if self._rows
            else self._blocks
        )

    def statistics(self) -> Statistics:
        """The statistics of all rows, of which there must be one."""
        return Statistics.merge(self.all_blocks())


@dataclass(frozen=True)
class Histogram:
    """How often each value occurs in the channels of a camera's frames: counts (3 256) int64."""

    frames: int
    counts: np.ndarray

    @classmethod
    def of(cls, frames: np.ndarray) -> "Histogram":
        """Count (n Y X 3) uint8, frame by frame."""
        image = import_optional("PIL.Image")
        counts = sum(np.array(image.fromarray(frame).histogram(), np.int64) for frame in frames)
        return cls(len(frames), np.reshape(counts, (3, 256)))

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(self.frames + other.frames, self.counts + other.counts)

    def summary(self) -> Summary:
        """The ten, of values in [0, 1], each (3 1 1); the count is of frames."""
        values, total = np.arange(256) / 255, self.counts.sum(axis=1)
        mean = self.counts @ values / total
        variance = np.sum(self.counts * np.square(values - mean[:, None]), axis=1) / total
        below = np.cumsum(self.counts, axis=1)
        ranks: Mapping[str, Any] = {"min": 1, "max": total} | {
            name: np.maximum(np.ceil(q * total), 1) for name, q in QUANTILES.items()
        }
        columns = {
            name: np.argmax(below >= np.reshape(rank, (-1, 1)), axis=1) / 255
            for name, rank in ranks.items()
        }
        columns |= {"mean": mean, "std": np.sqrt(variance)}
        summary = {name: column.reshape(3, 1, 1).tolist() for name, column in columns.items()}
        return summary | {"count": [self.frames]}
