"""What every reader of a format needs: meanings that are not recorded, pictures, and what to say of mistakes."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from math import prod
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter

from core.data.contracts import ActionConvention, Camera, Feature, Frame, Gripper, Mode, Rotation, StoreInfo
from core.errors import DataError, RecipeError, did_you_mean
from core.libraries import import_optional

INFLATION = 2_000  # times the bytes that are there: more than compression reaches, deflate's limit being 1,032
ALWAYS = 2**24  # bytes that may be claimed in any case: one flat picture takes next to nothing
AGREEING = 3  # places that lack what a setting names, until the setting is taken to be wrong
WIDEST = 10_000  # numbers in an action or in the proprioception

Kind = Literal["pictures", "numbers", "text"]  # what a name in a file stands for; "text" is also what is no numbers
Place = TypeVar("Place")
Found = TypeVar("Found")
INFO_VERSION = 1  # of what `dump_info` gives
_INFO = TypeAdapter(StoreInfo)


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
    fps: float,
    cameras: Mapping[str, Sequence[int]],
    action: ActionConvention,
    proprio: Sequence[str],
    origin: str,
    features: Mapping[str, Feature] | None = None,
) -> StoreInfo:
    """What holds for a source; cameras: {name: (rows, columns)}. Raises DataError where that describes no episodes."""
    if not cameras:
        raise DataError(f"{origin}: holds no pictures, and an episode needs a camera; name another source")
    try:
        shapes = {name: Camera(int(rows), int(columns)) for name, (rows, columns) in cameras.items()}
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
    """What holds for a store as plain data, for a format that has no place of its own for it; see `load_info`."""
    return {"version": INFO_VERSION, **_INFO.dump_python(info, mode="json")}


def load_info(plain: Any, where: str) -> StoreInfo:
    """Read back what `dump_info` gave, exactly; raises DataError, headed by `where`, for anything else."""
    try:
        if plain["version"] > INFO_VERSION:
            raise DataError(f"{where}: of version {plain['version']}, known is {INFO_VERSION}; upgrade joinery")
        # JSON is the mode in which pydantic is strict about types and yet takes a list for a tuple
        return _INFO.validate_json(json.dumps({key: plain[key] for key in plain if key != "version"}), strict=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: damaged ({one_line(error)}); copy the dataset again") from None


# ---------------------------------------------------------------------------------------------- what settings name


def kind_of(shape: Sequence[int], dtype: np.dtype) -> Kind:
    """What an array holds, one entry a frame: pictures are (n Y X 3)."""
    if dtype.kind not in "uifb":
        return "text"
    return "pictures" if len(shape) == 4 and shape[3] == 3 and dtype.kind != "b" else "numbers"


def check_mapping(
    where: Path | str, what: str, wanted: Mapping[str, Collection[str]], known: Mapping[str, Kind]
) -> None:
    """Raise RecipeError, one line for each, where settings name what is not there, or not of the kind that is needed.

    where: the file that was looked at. what: "array", for example. wanted: names by what they must stand for. Raises
    DataError where no pictures are wanted for want of any.
    """
    if "pictures" in wanted and not wanted["pictures"]:
        raise DataError(f"{where}: holds no pictures, and an episode needs a camera; name another source")
    mistakes = []
    for needed, names in wanted.items():
        fitting = [name for name, kind in known.items() if kind == needed]
        for name in names:
            if name not in known:
                mistakes.append(f"{where}: there is no {what} '{name}'{did_you_mean(name, [*known])}")
            elif known[name] != needed:
                said = f"{what} '{name}' holds {known[name]}, and {needed} are needed"
                mistakes.append(f"{where}: {said}{did_you_mean(name, fitting)}")
    if mistakes:
        raise RecipeError(mistakes)


# ---------------------------------------------------------------------------------------------- damage


def first_readable(places: Iterable[Place], read: Callable[[Place], Found]) -> Found:
    """What `read` finds at the first place, of one or more, that is as it should be.

    Goes on past DataError, and past RecipeError too: a setting is not wrong because one file lacks what it names.
    Raises the RecipeError once three places agree on it, and what was raised first where there is no good place.
    """
    errors: list[DataError] = []
    mistakes: list[RecipeError] = []
    for place in places:
        try:
            return read(place)
        except DataError as error:
            errors.append(error)
        except RecipeError as error:
            mistakes.append(error)
            if len(mistakes) == AGREEING:
                break
    if mistakes:
        raise mistakes[0]
    if len(errors) == 1:
        raise errors[0]
    raise DataError(f"none of {len(errors)} can be read; the first: {errors[0]}")


def size_of(file: Path) -> int:
    """Bytes in a file; raises DataError where there is nothing to read: no file, a folder or a pipe, or no bytes."""
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error)}); copy it again") from None
    if not S_ISREG(status.st_mode):
        raise DataError(f"{file}: is {'a folder' if S_ISDIR(status.st_mode) else 'no file'}; put the file there")
    if not status.st_size:
        raise DataError(f"{file}: is empty; copy it again")
    return status.st_size


def raise_if_inflated(claimed: int, there: int, where: str) -> None:
    """Raise DataError where the `there` bytes of a file cannot hold as many as they claim; before any is allocated."""
    if claimed > max(ALWAYS, INFLATION * there):
        raise DataError(f"{where}: says that it holds {claimed:,} bytes, more than {there:,} can; copy it again")


def one_line(error: Exception) -> str:
    """What an error says, in one line, or its kind where it says nothing."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())[:200] or type(error).__name__


# ---------------------------------------------------------------------------------------------- pictures and numbers


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
                raise_if_inflated(3 * rows * columns, len(data), f"{where}, frame {number}")
                frames.append(np.asarray(picture.convert("RGB")))
        except DataError:
            raise
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
    """Names of joined columns: the name itself where it is one number wide, else name_0, name_1 ...

    Raises DataError where a column has no numbers, or more than any robot.
    """
    for name, width in names_and_widths:
        if not 1 <= width <= WIDEST:
            raise DataError(f"'{name}' holds {width:,} numbers a frame, expected 1 to {WIDEST:,}; name another")
    return tuple(name if width == 1 else f"{name}_{i}" for name, width in names_and_widths for i in range(width))


def width_of(shape: Sequence[int]) -> int:
    """Numbers a frame in an array (n ...)."""
    return prod(int(length) for length in shape[1:])
