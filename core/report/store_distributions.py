"""How the numbers of a store are spread: each dimension's usual range, histogram, and what it is
measured in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.episodes.episode import ActionConvention
from core.report.store_inspection import reaches_far
from core.store.store import EpisodeStore

Feature = Literal["action", "proprio"]
BINS = 40
ROWS = 2**16  # of numbers in memory at once
UNKNOWN = "unit not recorded"


@dataclass(frozen=True)
class Dimension:
    """One number of the action or of the proprioception.

    index: which.
    unit: what its values mean, as far as the store says it.
    low, high: the range it is drawn over: all values, or without those that lie far outside.
    edges (BINS + 1), counts (BINS): its histogram over that range; outside: finite values that lie
    beyond.
    not_finite: values that are no numbers.
    """

    feature: Feature
    index: int
    name: str
    unit: str
    low: float
    high: float
    edges: np.ndarray
    counts: np.ndarray
    outside: int
    not_finite: int


def dimensions(store: EpisodeStore) -> list[Dimension]:
    """Every dimension of the actions and of the proprioception, measured over all frames of a store
    with episodes.
    """
    return [*_dimensions(store, "action"), *_dimensions(store, "proprio")]


def _dimensions(store: EpisodeStore, feature: Feature) -> Iterator[Dimension]:
    names = store.info.action.names if feature == "action" else store.info.proprio
    units = action_units(store.info.action) if feature == "action" else [UNKNOWN] * len(names)
    ranges = usual_ranges(store, feature)
    edges = [np.histogram_bin_edges([], BINS, range) for range in ranges]
    counts = np.zeros((len(names), BINS), np.int64)
    finite = np.zeros(len(names), np.int64)
    for numbers in _blocks(store, feature):
        for d in range(len(names)):
            known = numbers[np.isfinite(numbers[:, d]), d]
            finite[d] += len(known)
            counts[d] += np.histogram(known, edges[d])[0]
    for d, (name, unit, (low, high)) in enumerate(zip(names, units, ranges, strict=True)):
        outside, lost = int(finite[d] - counts[d].sum()), int(store.frame_count - finite[d])
        yield Dimension(feature, d, name, unit, low, high, edges[d], counts[d], outside, lost)


def usual_ranges(store: EpisodeStore, feature: Feature) -> list[tuple[float, float]]:
    """Each dimension's least and most value, or its middle 98 % and as much again where some lie
    far outside.
    """
    s = store.statistics[feature]
    ranges = []
    for d, (least, low, high, most) in enumerate(
        zip(s.min, s.quantile(0.01), s.quantile(0.99), s.max, strict=True)
    ):
        if not np.isfinite([least, low, high, most]).all():
            ranges.append(_finite_range(store, feature, d))
        elif reaches_far(least, low, high, most):
            ranges.append((max(least, low - (high - low) / 2), min(most, high + (high - low) / 2)))
        else:
            ranges.append((least, most))
    return [(float(low), float(high)) for low, high in ranges]


def action_units(action: ActionConvention) -> list[str]:
    """What 1.0 of each dimension is: a store records metres and radians, and which of the two is
    only partly known.
    """
    length = "m" if action.rotation == "none" and action.frame != "joint" else "m or rad"
    grippers = {
        g.dimension: f"gripper: {g.closed:g} closed, {g.open:g} open" for g in action.grippers
    }
    scaled = [length if scale == 1 else f"1.0 is {scale:g} {length}" for scale in action.scale]
    return [grippers.get(d, unit) for d, unit in enumerate(scaled)]


def _blocks(store: EpisodeStore, feature: Feature) -> Iterator[np.ndarray]:
    """All numbers of a feature, many episodes at a time: (n D) float32."""
    read, waiting, rows = store.actions if feature == "action" else store.proprio, [], 0
    for episode, length in enumerate(store.length.tolist()):
        waiting.append(read(episode, 0, length))
        rows += length
        if rows >= ROWS or episode == len(store) - 1:
            yield np.concatenate(waiting)
            waiting, rows = [], 0


def _finite_range(store: EpisodeStore, feature: Feature, d: int) -> tuple[float, float]:
    """The least and the most of those values of a dimension that are numbers."""
    found = [
        known
        for numbers in _blocks(store, feature)
        if (known := numbers[np.isfinite(numbers[:, d]), d]).size
    ]
    return (min(map(np.min, found)), max(map(np.max, found))) if found else (0.0, 1.0)
