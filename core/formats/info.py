"""Describe a source: make its StoreInfo, apply the user's corrections, convert to plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from core.episodes.episode import (
    ActionConvention,
    Camera,
    Feature,
    Frame,
    Gripper,
    Mode,
    Rotation,
    StoreInfo,
)
from core.errors import DataError
from core.system.strict import from_plain, one_line

# Version of the plain data that `dump_info` returns.
INFO_VERSION = 1


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
    """for each dimension, how many metres or radians the value 1.0 stands for."""
    rate: float | None = None
    """control rate in Hz."""
    grippers: tuple[Gripper, ...] | None = None
    """the dimensions that drive a gripper, with the values that close and open it."""


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


def source_info(
    fps: float,
    cameras: Mapping[str, Sequence[int]],
    action: ActionConvention,
    proprio: Sequence[str],
    origin: str,
    features: Mapping[str, Feature] | None = None,
) -> StoreInfo:
    """Make the description of a source.

    cameras: {name: (number of rows, number of columns)} of the images.

    Raises DataError, naming `origin`, if there are no cameras or a value is not valid.
    """
    if not cameras:
        raise DataError(
            f"{origin}: holds no pictures, and an episode needs a camera; name another source"
        )
    try:
        shapes = {
            name: Camera(int(rows), int(columns)) for name, (rows, columns) in cameras.items()
        }
        return StoreInfo(
            fps=fps,
            cameras=shapes,
            action=action,
            proprio=tuple(proprio),
            origin=origin,
            features=features or {},
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{origin}: {error}") from None


def dump_info(info: StoreInfo) -> dict[str, Any]:
    """Return a store's description as plain data, which `load_info` reads back exactly.

    A format that has no fields for a store's description can hold this plain data.
    """
    return {"version": INFO_VERSION, **TypeAdapter(StoreInfo).dump_python(info, mode="json")}


def load_info(plain: Any, where: str) -> StoreInfo:
    """Read back what `dump_info` returned.

    Raises DataError if `plain` is not such data, or has a later version. The message begins with
    `where`.
    """
    try:
        if plain["version"] > INFO_VERSION:
            raise DataError(
                f"{where}: of version {plain['version']}, known is {INFO_VERSION}; upgrade joinery"
            )
        return from_plain(StoreInfo, {key: plain[key] for key in plain if key != "version"})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: damaged ({one_line(error)}); copy the dataset again") from None
