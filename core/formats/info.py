"""What a source holds: what its actions mean, as its reader finds it and its user corrects it."""

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

INFO_VERSION = 1  # of what `dump_info` gives
_INFO = TypeAdapter(StoreInfo)


@dataclass(frozen=True)
class ConventionOverride:
    """What a format does not say, or says wrongly; what is left out stays as the format's reader
    found it.
    """

    names: tuple[str, ...] | None = None
    """one per dimension of the action, "x" or "gripper" for example."""
    mode: Mode | None = None
    """"delta" moves relative to where the robot is, "absolute" says where to be."""
    frame: Frame | None = None
    """in which coordinates: "world", "base", "tool" or "joint"."""
    rotation: Rotation | None = None
    """layout of the rotation dimensions, "none" where there are none."""
    scale: tuple[float, ...] | None = None
    """units per 1.0 of each dimension, in metres and radians."""
    rate: float | None = None
    """control rate in Hz."""
    grippers: tuple[Gripper, ...] | None = None
    """the dimensions that drive a gripper, with the values that close and open it."""


def override_convention(
    found: ActionConvention, said: ConventionOverride | None
) -> ActionConvention:
    """Put what a user says over what a reader found; raises DataError where the two do not fit
    together.
    """
    if said is None:
        return found
    try:
        return replace(
            found, **{name: value for name, value in vars(said).items() if value is not None}
        )
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
    """What holds for a source; cameras: {name: (rows, columns)}. Raises DataError where that
    describes no episodes.
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
    """What holds for a store as plain data, for a format that has no place of its own for it; see
    `load_info`.
    """
    return {"version": INFO_VERSION, **_INFO.dump_python(info, mode="json")}


def load_info(plain: Any, where: str) -> StoreInfo:
    """Read back what `dump_info` gave, exactly; raises DataError, headed by `where`, for anything
    else.
    """
    try:
        if plain["version"] > INFO_VERSION:
            raise DataError(
                f"{where}: of version {plain['version']}, known is {INFO_VERSION}; upgrade joinery"
            )
        return from_plain(StoreInfo, {key: plain[key] for key in plain if key != "version"})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: damaged ({one_line(error)}); copy the dataset again") from None
