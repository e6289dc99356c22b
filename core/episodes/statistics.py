"""Statistics of a feature that merge: a store's normalisation is known without reading its numbers
again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

GRID = np.linspace(
    0.0, 1.0, 201
)  # steps of half a per cent, so that the 1 % and 99 % quantiles lie on the grid

Row = tuple[float, ...]


@dataclass(frozen=True)
class Statistics:
    """Statistics per dimension of a feature (n D).

    count: number of rows n.
    means: D.
    deviations: sums of squared deviations from the mean, D; unlike sums of squares they do not
    cancel.
    quantiles: the quantiles at GRID of each dimension (D 201); the first is the minimum, the last
    the maximum.
    """

    count: int
    means: Row
    deviations: Row
    quantiles: tuple[Row, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        """Statistics of array (n D), n >= 1, finite."""
        exact = array.astype(np.float64)
        mean = exact.mean(axis=0)
        deviations = np.square(exact - mean).sum(axis=0)
        return cls(
            len(exact), _row(mean), _row(deviations), _rows(np.quantile(exact, GRID, axis=0).T)
        )

    @classmethod
    def merge(cls, many: Iterable[Self]) -> Self:
        """Statistics of the rows of all together, at least one: exact moments, and quantiles of the
        mixture.

        Moments merge as by Chan, Golub and LeVeque (1983); a quantile is off by one step of the
        grid at most.
        """
        # arrays at once: tuples of numbers take four times the memory, and a store has thousands of
        # parts
        arrays = [
            (one.count, *map(np.array, (one.means, one.deviations, one.quantiles))) for one in many
        ]
        counts, means, deviations, grids = map(
            np.array, zip(*arrays, strict=True)
        )  # grids: (many D 201)
        mean = counts @ means / counts.sum()
        within = deviations.sum(axis=0)
        between = counts @ np.square(means - mean)
        mixed = [_mixture(counts, grids[:, d]) for d in range(grids.shape[1])]
        return cls(int(counts.sum()), _row(mean), _row(within + between), _rows(mixed))

    def place(self, columns: Sequence[int], width: int) -> Self:
        """Statistics of rows of `width` numbers that have these ones at `columns` and are 0
        elsewhere.
        """
        at = {column: d for d, column in enumerate(columns)}
        zeros = tuple([0.0] * GRID.size)
        return replace(
            self,
            means=tuple(self.means[at[c]] if c in at else 0.0 for c in range(width)),
            deviations=tuple(self.deviations[at[c]] if c in at else 0.0 for c in range(width)),
            quantiles=tuple(self.quantiles[at[c]] if c in at else zeros for c in range(width)),
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


def _mixture(counts: np.ndarray, grids: np.ndarray) -> np.ndarray:
    """Return a mixture's quantiles (201) from its parts' grids (many 201): each value stands for
    its share of rows.
    """
    share = np.full(GRID.size, 1.0)
    share[[0, -1]] = 0.5
    weights = np.outer(counts, share).ravel()
    order = np.argsort(grids, axis=None, kind="stable")
    weights = weights[order]
    probability = (np.cumsum(weights) - weights / 2) / weights.sum()
    mixed: np.ndarray = np.interp(GRID, probability, grids.ravel()[order])
    return mixed


def _row(values: np.ndarray) -> Row:
    return tuple(values.tolist())


def _rows(values: np.ndarray | Sequence[np.ndarray]) -> tuple[Row, ...]:
    return tuple(_row(row) for row in values)
