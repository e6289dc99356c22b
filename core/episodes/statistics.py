"""Statistics that can be merged, so that normalisation does not read all data again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

# The grid of quantiles has steps of half a per cent. So it contains the 1 % and 99 % quantiles.
GRID = np.linspace(0.0, 1.0, 201)

Row = tuple[float, ...]


@dataclass(frozen=True)
class Statistics:
    """Statistics of each dimension of an array (n D), such as all actions of a store.

    count: number of rows, n.
    means: (D), the mean of each dimension.
    deviations: (D), for each dimension, the sum of squared deviations from its mean. (A
        sum of squared values would be less precise if the mean is far from zero.)
    quantiles: (D 201), for each dimension, its quantiles at the probabilities GRID. The first is
        the minimum, and the last is the maximum.
    """

    count: int
    means: Row
    deviations: Row
    quantiles: tuple[Row, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        """Compute the statistics of an array (n D) of finite numbers, n >= 1."""
        values = array.astype(np.float64)
        mean = values.mean(axis=0)
        deviations = np.square(values - mean).sum(axis=0)
        quantiles = np.quantile(values, GRID, axis=0).T
        return cls(len(values), _row(mean), _row(deviations), _rows(quantiles))

    @classmethod
    def merge(cls, many: Iterable[Self]) -> Self:
        """Combine the statistics of one or more disjoint sets of rows into those of all rows.

        Means and deviations are exact (Chan, Golub and LeVeque, 1983). The probability
        of each quantile is off by at most one step of the grid.
        """
        # Each set's tuples are replaced by arrays before the next set is read. Tuples take four
        # times the memory of arrays, and a store can have thousands of sets, one per segment.
        arrays = [
            (
                statistics.count,
                np.array(statistics.means),
                np.array(statistics.deviations),
                np.array(statistics.quantiles),
            )
            for statistics in many
        ]
        # of m sets: counts (m), means (m D), deviations (m D), grids (m D 201)
        counts, means, deviations, grids = map(np.array, zip(*arrays, strict=True))
        mean = counts @ means / counts.sum()
        within = deviations.sum(axis=0)
        between = counts @ np.square(means - mean)
        quantiles = [_merge_quantiles(counts, grids[:, d]) for d in range(grids.shape[1])]
        return cls(int(counts.sum()), _row(mean), _row(within + between), _rows(quantiles))

    def scatter(self, columns: Sequence[int], width: int) -> Self:
        """Return the statistics of wider rows, with these dimensions at `columns` and 0 elsewhere.

        columns: (D), the index of each dimension in the wider rows.
        width: number of dimensions of the wider rows.
        """
        source = {column: d for d, column in enumerate(columns)}
        zeros = tuple([0.0] * GRID.size)
        return replace(
            self,
            means=tuple(self.means[source[c]] if c in source else 0.0 for c in range(width)),
            deviations=tuple(
                self.deviations[source[c]] if c in source else 0.0 for c in range(width)
            ),
            quantiles=tuple(
                self.quantiles[source[c]] if c in source else zeros for c in range(width)
            ),
        )

    @property
    def dim(self) -> int:
        """Number of dimensions (D)."""
        return len(self.means)

    @property
    def mean(self) -> np.ndarray:
        """(D) float64."""
        return np.array(self.means)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation, (D) float64."""
        return np.sqrt(np.array(self.deviations) / self.count)

    @property
    def min(self) -> np.ndarray:
        """(D) float64."""
        return self.quantile(0.0)

    @property
    def max(self) -> np.ndarray:
        """(D) float64."""
        return self.quantile(1.0)

    def quantile(self, q: float) -> np.ndarray:
        """Return the q-quantile, 0 <= q <= 1, of each dimension, (D) float64."""
        return np.array([np.interp(q, GRID, row) for row in self.quantiles], np.float64)


def _merge_quantiles(counts: np.ndarray, grids: np.ndarray) -> np.ndarray:
    """Return the quantiles (201) of all rows of several sets together.

    counts: (m), number of rows in each set.
    grids: (m 201), each set's quantiles.

    The first and the last of a set's 201 quantiles each stand for a quarter of a per cent of the
    set's rows, and each quantile between them for half a per cent.
    """
    share = np.full(GRID.size, 1.0)
    share[[0, -1]] = 0.5
    weights = np.outer(counts, share).ravel()
    order = np.argsort(grids, axis=None, kind="stable")
    weights = weights[order]
    probability = (np.cumsum(weights) - weights / 2) / weights.sum()
    quantiles: np.ndarray = np.interp(GRID, probability, grids.ravel()[order])
    return quantiles


def _row(values: np.ndarray) -> Row:
    return tuple(values.tolist())


def _rows(values: np.ndarray | Sequence[np.ndarray]) -> tuple[Row, ...]:
    return tuple(_row(row) for row in values)
