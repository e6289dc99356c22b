"""What looks wrong about the numbers of a store, judging by their statistics alone."""

from collections.abc import Iterator, Mapping
from math import pi, tau

import numpy as np

from core.episodes.conventions import gripper_of, rotation_columns
from core.episodes.episode import ActionConvention, StoreInfo
from core.episodes.statistics import Statistics

# A value is an outlier if its distance from the range of the middle 98 % of values is more than
# this many times the width of that range.
OUTLIER_SPANS = 5.0
# A dimension jitters if the range of its middle 98 % is below this share of the median range of
# the dimensions that change.
JITTER_SHARE = 1e-3
# The largest angles and distances that are believed: a joint that turns twice in each direction, a
# rotation of one turn (with a margin for rounding), and a hand ten metres away.
MOST_JOINT, MOST_ROTATION, MOST_DISTANCE = 2 * tau, 1.01 * tau, 10.0
# The middle 98 % of a gripper's values may exceed the values that close and open it by this share
# of their distance.
GRIPPER_MARGIN = 0.25


def implausible_numbers(info: StoreInfo, statistics: Mapping[str, Statistics]) -> Iterator[str]:
    """Yield a line for each dimension that never changes, jitters, has outliers or a wrong meaning.

    statistics: of "action" and "proprio".
    """
    names = {"action": info.action.names, "proprio": info.proprio}
    for feature in ("action", "proprio"):
        numbers = statistics[feature]
        if not numbers.dim:
            continue
        jitter = jittering(numbers)
        low, high = numbers.quantile(0.01), numbers.quantile(0.99)
        for d, name in enumerate(names[feature]):
            least, most = numbers.min[d], numbers.max[d]
            if least == most:
                yield f"{feature} {name} is {least:g} throughout"
            elif jitter[d]:
                yield f"{feature} {name} hardly changes: from {least:.6g} to {most:.6g}"
            elif has_outliers(least, low[d], high[d], most):
                usual = f"98 % of it from {low[d]:.4g} to {high[d]:.4g}"
                yield f"{feature} {name} reaches from {least:.4g} to {most:.4g}, {usual}"
    yield from impossible_meanings(info.action, statistics["action"])


def impossible_meanings(action: ActionConvention, statistics: Statistics) -> Iterator[str]:
    """Yield a line for each action dimension that cannot mean what the convention says."""
    yield from _impossible_units(action, statistics)
    yield from _impossible_grippers(action, statistics)


def has_outliers(least: float, low: float, high: float, most: float) -> bool:
    """Return whether a dimension has outliers; its middle 98 % reaches from `low` to `high`."""
    return high > low and max(most - high, low - least) > OUTLIER_SPANS * (high - low)


def jittering(statistics: Statistics) -> np.ndarray:
    """Return which dimensions (D) change by no more than noise, compared with the others.

    Sensors and encoders add such noise to what stands still.
    """
    ranges = statistics.quantile(0.99) - statistics.quantile(0.01)
    moving = ranges[ranges > 0]
    if not len(moving):
        return np.zeros(statistics.dim, bool)
    jitters: np.ndarray = (ranges > 0) & (ranges < JITTER_SHARE * np.median(moving))
    return jitters


def _impossible_units(action: ActionConvention, statistics: Statistics) -> Iterator[str]:
    """Yield a line for the dimensions that cannot be radians by `scale`, and one for metres.

    What is recorded in another unit can be anything.
    """
    rotation = rotation_columns(action) if action.rotation in ("euler_xyz", "axis_angle") else []
    low, high = np.abs(statistics.quantile(0.01)), np.abs(statistics.quantile(0.99))
    values = np.maximum(low, high) * np.abs(action.scale)
    radians, metres = {}, {}
    for d, name in enumerate(action.names):
        unit = action.units[d] if action.units else ""
        if gripper_of(action, d) is not None or unit not in ("", "m", "rad"):
            continue
        if unit == "rad" or (not unit and (action.frame == "joint" or d in rotation)):
            if values[d] > (MOST_JOINT if action.frame == "joint" else MOST_ROTATION):
                radians[name] = values[d]
        elif values[d] > MOST_DISTANCE:
            metres[name] = values[d]
    if radians:
        turns = max(radians.values()) / tau
        yield (
            f"{_reach(radians)} rad, {turns:.3g} turns; if the data are in degrees, meaning.scale "
            f"is {pi / 180:.6f} for all angles, and a gripper belongs under meaning.grippers"
        )
    if metres:
        yield f"{_reach(metres)} m; if the data are in millimetres, meaning.scale is 0.001 there"


def _impossible_grippers(action: ActionConvention, statistics: Statistics) -> Iterator[str]:
    """Yield a line for each gripper whose values do not fit those that close and open it.

    They lie outside, or a binary gripper changes without ever passing the middle, so that it would
    be taken for open, or for closed, throughout.
    """
    low, high = statistics.quantile(0.01), statistics.quantile(0.99)
    for gripper in action.grippers:
        d, (least, most) = gripper.dimension, sorted((gripper.closed, gripper.open))
        margin, middle = GRIPPER_MARGIN * (most - least), (least + most) / 2
        is_outside = low[d] < least - margin or high[d] > most + margin
        is_on_one_side = low[d] < high[d] and (high[d] <= middle or low[d] >= middle)
        if is_outside or (gripper.kind == "binary" and is_on_one_side):
            yield (
                f"action {action.names[d]} reaches from {low[d]:.4g} to {high[d]:.4g}, and as a "
                f"gripper it is closed at {gripper.closed:g} and open at {gripper.open:g}; correct "
                "meaning.grippers"
            )


def _reach(values: Mapping[str, float]) -> str:
    verb = "reaches" if len(values) == 1 else "reach up to"
    return f"action {', '.join(values)} {verb} {max(values.values()):.4g}"
