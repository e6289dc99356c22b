"""Measures how a store's numbers are distributed: a histogram for each dimension."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.episodes.conventions import gripper_of
from core.episodes.episode import ActionConvention
from core.episodes.plausibility import has_outliers
from core.report.store_numbers import NumberFeature, action_unit, names_by_feature, proprio_units
from core.store.store import EpisodeStore

BINS = 40
# The actions or the proprioception of about this many frames are in memory at once.
ROWS = 2**16
UNKNOWN_UNIT = "unit not recorded"


@dataclass(frozen=True)
class Dimension:
    """A dimension of the action or of the proprioception, and how its values are distributed.

    unit: the unit of the values, as far as the store says.
    low, high: the range of the histogram, which leaves out outliers.
    edges (BINS + 1), counts (BINS): the histogram.
    outside: number of finite values outside the range of the histogram.
    not_finite: number of values that are NaN or infinite.
    """

    feature: NumberFeature
    index: int
    name: str
    unit: str
    low: float
    high: float
    edges: np.ndarray
    counts: np.ndarray
    outside: int
    not_finite: int


def measure_dimensions(store: EpisodeStore) -> list[Dimension]:
    """Measure all dimensions of a store, the actions first, over all frames."""
    dimensions = []
    for feature, names in names_by_feature(store.info).items():
        if feature == "action":
            units = action_units(store.info.action)
        else:
            known = proprio_units(store.info)
            units = [known.get(name, UNKNOWN_UNIT) for name in names]
        ranges = histogram_ranges(store, feature)
        edges = [np.histogram_bin_edges([], BINS, low_and_high) for low_and_high in ranges]
        counts = np.zeros((len(names), BINS), np.int64)
        finite = np.zeros(len(names), np.int64)
        for numbers in _read_blocks(store, feature):
            for d in range(len(names)):
                values = numbers[np.isfinite(numbers[:, d]), d]
                finite[d] += len(values)
                counts[d] += np.histogram(values, edges[d])[0]
        for d, name in enumerate(names):
            dimensions.append(
                Dimension(
                    feature=feature,
                    index=d,
                    name=name,
                    unit=units[d],
                    low=ranges[d][0],
                    high=ranges[d][1],
                    edges=edges[d],
                    counts=counts[d],
                    outside=int(finite[d] - counts[d].sum()),
                    not_finite=int(store.frame_count - finite[d]),
                )
            )
    return dimensions


def histogram_ranges(store: EpisodeStore, feature: NumberFeature) -> list[tuple[float, float]]:
    """Return the range (low, high) over which each dimension is drawn.

    Without outliers, the range reaches from the least to the greatest value. With outliers, it is
    the range of the middle 98 %, extended on either side by half of its width, but not beyond the
    least and the greatest value. If one of these values or an end of the middle 98 % is not finite,
    the range reaches from the least to the greatest finite value.
    """
    statistics = store.statistics[feature]
    quantiles = zip(
        statistics.min,
        statistics.quantile(0.01),
        statistics.quantile(0.99),
        statistics.max,
        strict=True,
    )
    ranges = []
    for d, (least, low, high, most) in enumerate(quantiles):
        margin = (high - low) / 2
        if not np.isfinite([least, low, high, most]).all():
            ranges.append(_finite_range(store, feature, d))
        elif has_outliers(least, low, high, most):
            ranges.append((max(least, low - margin), min(most, high + margin)))
        else:
            ranges.append((least, most))
    return [(float(low), float(high)) for low, high in ranges]


def action_units(action: ActionConvention) -> list[str]:
    """Describe the unit of each action dimension: what its value 1.0 is, or a gripper's ends."""
    units = []
    for dimension, scale in enumerate(action.scale):
        if gripper := gripper_of(action, dimension):
            units.append(f"gripper: {gripper.closed:g} closed, {gripper.open:g} open")
        else:
            unit = action_unit(action, dimension)
            units.append(unit if scale == 1 else f"1.0 is {scale:g} {unit}".rstrip())
    return units


def _read_blocks(store: EpisodeStore, feature: NumberFeature) -> Iterator[np.ndarray]:
    """Yield all numbers of a feature, (n D) float32, in blocks of many episodes."""
    read = store.actions if feature == "action" else store.proprio
    block: list[np.ndarray] = []
    rows = 0
    for episode, length in enumerate(store.length.tolist()):
        block.append(read(episode, 0, length))
        rows += length
        if rows >= ROWS or episode == len(store) - 1:
            yield np.concatenate(block)
            block, rows = [], 0


def _finite_range(store: EpisodeStore, feature: NumberFeature, d: int) -> tuple[float, float]:
    """Return the least and the greatest finite value of a dimension; 0 and 1 if it has none."""
    lows, highs = [], []
    for numbers in _read_blocks(store, feature):
        values = numbers[np.isfinite(numbers[:, d]), d]
        if values.size:
            lows.append(values.min())
            highs.append(values.max())
    return (min(lows), max(highs)) if lows else (0.0, 1.0)
