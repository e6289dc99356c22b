"""What every reader of a format needs: meanings that are not recorded, pictures, and what to say of mistakes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np

from core.data.contracts import ActionConvention, Camera, Frame, Gripper, Mode, Rotation, StoreInfo
from core.errors import DataError, RecipeError, did_you_mean
from core.libraries import import_optional


@dataclass(frozen=True)
class Meaning:
    """What a format does not say, or says wrongly; what is left out stays as the format's reader found it.

    names: one per dimension of the action, "x" or "gripper" for example.
    mode: "delta" moves relative to where the robot is, "absolute" says where to be.
    frame: in which coordinates: "world", "base", "tool" or "joint".
    rotation: layout of the rotation dimensions, "none" where there are none.
    scale: units per 1.0 of each dimension, in metres and radians.
    rate: control rate in Hz.
    grippers: the dimensions that drive a gripper, with the values that close and open it.
    """

    names: tuple[str, ...] | None = None
    mode: Mode | None = None
    frame: Frame | None = None
    rotation: Rotation | None = None
    scale: tuple[float, ...] | None = None
    rate: float | None = None
    grippers: tuple[Gripper, ...] | None = None


def correct_convention(found: ActionConvention, said: Meaning | None) -> ActionConvention:
    """Put what a user says over what a reader found; raises DataError where the two do not fit together."""
    if said is None:
        return found
    try:
        return replace(found, **{name: value for name, value in vars(said).items() if value is not None})
    except ValueError as error:
        raise DataError(f"meaning: {error}") from None


def describe_source(
    fps: float, cameras: Mapping[str, Sequence[int]], action: ActionConvention, proprio: Sequence[str], origin: str
) -> StoreInfo:
    """What holds for a source; cameras: {name: (rows, columns)}. Raises DataError where that describes no episodes."""
    if not cameras:
        raise DataError(f"{origin}: holds no pictures, and an episode needs a camera; name another source")
    try:
        shapes = {name: Camera(int(rows), int(columns)) for name, (rows, columns) in cameras.items()}
        return StoreInfo(fps=fps, cameras=shapes, action=action, proprio=tuple(proprio), origin=origin)
    except (ValueError, TypeError) as error:
        raise DataError(f"{origin}: {error}") from None


def raise_if_unknown(what: str, wanted: Sequence[str], known: Iterable[str]) -> None:
    """Raise RecipeError, one line for each, where settings name what is not there."""
    there = sorted(known)
    if lost := [name for name in wanted if name not in there]:
        raise RecipeError([f"there is no {what} '{name}'{did_you_mean(name, there)}" for name in lost])


def one_line(error: Exception) -> str:
    """What an error says, in one line, or its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def as_pictures(array: np.ndarray, where: str, *, unit: bool) -> np.ndarray:
    """(n Y X 3) of any numbers -> uint8.

    unit: floats lie in [0, 1], else in [0, 255]. where: what the array is, for the DataError where it is no pictures.
    """
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype.kind not in "uif":
        raise DataError(f"{where}: {array.dtype} {array.shape} are no pictures (n rows columns 3)")
    if array.dtype == np.uint8:
        return array
    scaled = array * 255.0 if unit and array.dtype.kind == "f" else array
    if not array.size or not np.isfinite(scaled).all() or scaled.min() < 0 or scaled.max() > 255:
        raise DataError(f"{where}: values outside [0, {1 if unit else 255}] are no pictures")
    pictures: np.ndarray = np.rint(scaled).astype(np.uint8)
    return pictures


def is_unit(array: np.ndarray) -> bool:
    """Whether floats look like pictures in [0, 1]."""
    return array.dtype.kind == "f" and array.size > 0 and float(array.max()) <= 1.0


def decode_pictures(encoded: Sequence[bytes], rows: int, columns: int, where: str) -> np.ndarray:
    """Decode PNG, JPEG and the like -> (n rows columns 3) uint8; raises DataError that names the frame."""
    image = import_optional("PIL.Image")
    frames = []
    for number, data in enumerate(encoded):
        try:
            with image.open(BytesIO(data)) as picture:
                if (picture.height, picture.width) != (rows, columns):
                    raise ValueError(f"{picture.height} x {picture.width} pixels instead of {rows} x {columns}")
                frames.append(np.asarray(picture.convert("RGB")))
        except Exception as error:  # noqa: BLE001 - a damaged picture fails in any way
            raise DataError(f"{where}, frame {number}: cannot be decoded ({one_line(error)})") from None
    return np.stack(frames) if frames else np.empty((0, rows, columns, 3), np.uint8)


def join_columns(columns: Sequence[np.ndarray], length: int, where: str) -> np.ndarray:
    """Columns (n ...) -> (n D) float32; raises DataError where one has another length or holds no numbers."""
    for column in columns:
        if column.dtype.kind not in "uifb" or column.ndim < 1 or len(column) != length:
            raise DataError(f"{where}: {column.dtype} {column.shape}, expected numbers of {length} frames")
    with np.errstate(over="ignore"):  # what becomes infinite is refused when it enters a store
        flat = [column.reshape(length, -1).astype(np.float32) for column in columns]
    return np.concatenate([np.empty((length, 0), np.float32), *flat], axis=1)


def numbered(names_and_widths: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Names of joined columns: the name itself where it is one number wide, else name_0, name_1 ..."""
    return tuple(name if width == 1 else f"{name}_{i}" for name, width in names_and_widths for i in range(width))
