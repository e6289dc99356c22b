"""Pictures of other formats, as RGB uint8."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np

from core.errors import DataError
from core.formats.damage import check_claimed_size
from core.system.optional_imports import import_optional
from core.system.strict import one_line


def as_images(array: np.ndarray, where: str, *, unit: bool) -> np.ndarray:
    """(n Y X 3) of any numbers -> uint8.

    unit: floats lie in [0, 1], else in [0, 255]. where: what the array is, for the DataError where
    it is no pictures.
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


def is_unit_range(array: np.ndarray) -> bool:
    """Whether floats look like pictures in [0, 1]."""
    return array.dtype.kind == "f" and array.size > 0 and float(array.max()) <= 1.0


def decode_images(encoded: Sequence[bytes], rows: int, columns: int, where: str) -> np.ndarray:
    """Decode PNG, JPEG and the like -> (n rows columns 3) uint8; raises DataError that names the
    frame.
    """
    image = import_optional("PIL.Image")
    frames = []
    for number, data in enumerate(encoded):
        try:
            with image.open(BytesIO(data)) as picture:
                if (picture.height, picture.width) != (rows, columns):
                    raise ValueError(
                        f"{picture.height} x {picture.width} pixels instead of {rows} x {columns}"
                    )
                check_claimed_size(3 * rows * columns, len(data), f"{where}, frame {number}")
                frames.append(np.asarray(picture.convert("RGB")))
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged picture fails in any way
            raise DataError(
                f"{where}, frame {number}: cannot be decoded ({one_line(error)})"
            ) from None
    return np.stack(frames) if frames else np.empty((0, rows, columns, 3), np.uint8)
