"""Describe a source: make its StoreInfo, and convert it to plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from core.episodes.episode import ActionConvention, Camera, Feature, StoreInfo
from core.errors import DataError
from core.system.strict import from_plain, one_line

# Version of the plain data that `dump_info` returns.
INFO_VERSION = 1


def source_info(
    fps: float,
    cameras: Mapping[str, Sequence[int]],
    action: ActionConvention,
    proprio: Sequence[str],
    origin: str,
    features: Mapping[str, Feature] | None = None,
    assumed: Mapping[str, str] | None = None,
    proprio_units: Sequence[str] = (),
) -> StoreInfo:
    """Make the description of a source.

    cameras: {name: (number of rows, number of columns)} of the images.
    assumed, proprio_units: {what is assumed: why}, and units, as in StoreInfo.

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
            assumed=assumed or {},
            proprio_units=tuple(proprio_units),
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
