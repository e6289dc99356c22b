"""Holds a recipe's normalisation against the values that the data have."""

from collections.abc import Iterator

import numpy as np

from core.episodes.conventions import gripper_of
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.episodes.plausibility import jittering
from core.episodes.statistics import Statistics
from core.loading.dataset import Dataset

# A recipe is refused if more than this share of a dimension's values would be clipped, and warned
# of above the second share.
MOST_CLIPPED, MUCH_CLIPPED = 0.5, 0.05
# With "min_max", the middle 98 % of a dimension's values should fill at least this share of
# [-1, 1].
LEAST_FILLED = 0.1
# Without clipping, no value should be further from 0 than this after normalisation, which leaves
# usual values within 1 or a few deviations.
MOST_NORMALISED = 50.0


def meaningless_normalization(dataset: Dataset) -> Iterator[str]:
    """Yield a line for each dimension most of whose values `action.normalization` would clip."""
    for name, share, reach in _clipped(dataset):
        if share > MOST_CLIPPED:
            yield _clipping(name, share, reach)


def doubtful_normalization(dataset: Dataset) -> Iterator[str]:
    """Yield a line for each dimension that normalisation clips, stretches or squeezes a lot."""
    for name, share, reach in _clipped(dataset):
        if share > MUCH_CLIPPED:
            yield _clipping(name, share, reach)
    yield from _squeezed(dataset)
    yield from _far_out(dataset)
    numbers, normalizer = dataset.view.statistics["action"], dataset.action_normalizer
    if normalizer.method not in ("none", "clip_range"):
        yield from _stretched("action", dataset.view.info.action.names, numbers, normalizer)
    numbers = dataset.view.statistics["proprio"]
    if numbers.dim:
        names, proprio_normalizer = dataset.view.info.proprio, dataset.proprio_normalizer
        yield from _stretched("proprio", names, numbers, proprio_normalizer)


def _clipped(dataset: Dataset) -> Iterator[tuple[str, float, str]]:
    """Yield each action dimension's name, share of clipped values, and range, in words."""
    action, numbers = dataset.view.info.action, dataset.view.statistics["action"]
    normalizer = dataset.action_normalizer
    if normalizer.method != "clip_range":
        return
    edges = normalizer.affine.backward(np.array([[-1.0], [1.0]]) * np.ones(numbers.dim))
    for d, name in enumerate(action.names):
        quantiles = np.array(numbers.quantiles[d])
        margin = 1e-6 * (edges[1, d] - edges[0, d])
        outside = (quantiles < edges[0, d] - margin) | (quantiles > edges[1, d] + margin)
        if gripper_of(action, d) is None and outside.any():
            yield name, outside.mean().item(), f"{quantiles[0]:.4g} to {quantiles[-1]:.4g}"


def _clipping(name: str, share: float, reach: str) -> str:
    return (
        f"action.normalization: clip_range would clip {share:.0%} of action {name}, which reaches "
        f'from {reach}; choose "quantile_clipped", or set action.clip_range'
    )


def _squeezed(dataset: Dataset) -> Iterator[str]:
    """Yield a line for each action dimension whose outliers squeeze the usual values."""
    action, numbers = dataset.view.info.action, dataset.view.statistics["action"]
    if dataset.action_normalizer.method != "min_max":
        return
    usual = numbers.quantile(0.99) - numbers.quantile(0.01)
    whole = numbers.max - numbers.min
    for d, name in enumerate(action.names):
        if gripper_of(action, d) is None and 0 < usual[d] < LEAST_FILLED * whole[d]:
            yield (
                f"action.normalization: with min_max, 98 % of action {name} fill only "
                f'{usual[d] / whole[d]:.1%} of [-1, 1]; choose "quantile_clipped"'
            )


def _far_out(dataset: Dataset) -> Iterator[str]:
    """Yield a line for each action dimension whose outliers are huge targets for the network."""
    normalizer, numbers = dataset.action_normalizer, dataset.view.statistics["action"]
    if normalizer.method not in ("quantile", "mean_std"):
        return
    extremes = np.stack([numbers.min, numbers.max]).astype(np.float32)
    farthest = np.abs(normalizer.normalize(extremes)).max(axis=0)
    for d, name in enumerate(dataset.view.info.action.names):
        if farthest[d] > MOST_NORMALISED:
            yield (
                f"action.normalization: with {normalizer.method}, outliers of action {name} are "
                f'{farthest[d]:,.0f}, and usual values about 1; choose "quantile_clipped"'
            )


def _stretched(
    feature: str,
    names: tuple[str, ...],
    numbers: Statistics,
    normalizer: Normalizer | ProprioNormalizer,
) -> Iterator[str]:
    """Yield a line for each dimension whose noise is stretched to the size of a movement."""
    key = "action.constant" if feature == "action" else "data.constant_proprio"
    for d in np.flatnonzero(jittering(numbers)):
        factor = normalizer.affine.scale[d]
        if factor > 1:
            yield (
                f"{feature} {names[d]} hardly changes, and normalisation stretches it "
                f"{factor:,.0f}-fold; name it in {key}, or leave it out when you import"
            )
