"""Corrections of what a dataset says, or does not say, about its actions and names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from core.episodes.episode import ActionConvention, Frame, Gripper, Mode, Rotation
from core.episodes.units import units_by_name, units_in_order
from core.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True)
class ConventionOverride:
    """The user's corrections to an action convention that a format records wrongly or not at all.

    A field that is left out keeps the value that the format's reader determined.
    """

    names: tuple[str, ...] | None = None
    """names of the action's dimensions, "x" or "gripper" for example."""
    mode: Mode | None = None
    """"delta" moves relative to where the robot is, "absolute" says where to be."""
    frame: Frame | None = None
    """coordinate system of the action: "world", "base", "tool" or "joint"."""
    rotation: Rotation | None = None
    """layout of the rotation dimensions; "none" if there are none."""
    scale: tuple[float, ...] | None = None
    """for each dimension, how many of its units the value 1.0 stands for: metres and radians,
    unless `units` says otherwise.
    """
    rate: float | None = None
    """control rate in Hz."""
    grippers: tuple[Gripper, ...] | None = None
    """the dimensions that drive a gripper, with the values that close and open it."""
    units: tuple[str, ...] | None = None
    """for each dimension, its unit: "m", "rad", "N", "m/s" or "px" for example, "1" for a plain
    number, "" if it is not known.
    """


def override_convention(
    convention: ActionConvention, override: ConventionOverride | None
) -> ActionConvention:
    """Apply a user's corrections to the convention that a reader determined.

    Raises DataError if the result contradicts itself, for example if `scale` has too few numbers.
    """
    if override is None:
        return convention
    changes = {name: value for name, value in vars(override).items() if value is not None}
    try:
        return replace(convention, **changes)
    except ValueError as error:
        raise DataError(f"meaning: {error}") from None


def without_told(assumed: Mapping[str, str], override: ConventionOverride | None) -> dict[str, str]:
    """Return what is still assumed after the user's corrections: {property: why}."""
    told = {
        name for name, value in vars(override or ConventionOverride()).items() if value is not None
    }
    return {key: why for key, why in assumed.items() if key not in told}


def renamed(names: Sequence[str], new_names: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Rename some numbers: {new name: old name}.

    key: the setting that names them, for messages.

    Raises ConfigError for an unknown old name, and if two numbers would have one name.
    """
    mistakes = [
        f"{key}: no number is called '{old}'{did_you_mean(old, names)}"
        for old in new_names.values()
        if old not in names
    ]
    if mistakes:
        raise ConfigError(mistakes)
    new_of = {old: new for new, old in new_names.items()}
    if len(new_of) < len(new_names):
        raise ConfigError(f"{key}: gives one number two names; leave one out")
    result = tuple(new_of.get(name, name) for name in names)
    if len({*result}) < len(result):
        raise ConfigError(f"{key}: two of {', '.join(result)} would have one name; choose others")
    return result


def corrected_units(
    names: Sequence[str], units: Sequence[str], corrections: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the units of proprioceptive numbers after the user's corrections, {name: unit}.

    Raises ConfigError for a number that is not among the names.
    """
    for name in corrections:
        if name not in names:
            hint = did_you_mean(name, names)
            raise ConfigError(f"proprio_units: no number is called '{name}'{hint}")
    return units_in_order(names, units_by_name(names, units) | dict(corrections))
