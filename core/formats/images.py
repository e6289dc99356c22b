"""Convert images to RGB uint8: arrays of any number type, and files such as PNG and JPEG."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np

from core.errors import DataError
from core.formats.damage import check_claimed_size
from core.system.optional_imports import import_optional
from core.system.strict import one_line


def as_images(array: np.ndarray, where: str, *, unit: bool) -> np.ndarray:
    """Convert images (n Y X 3) of any number type to uint8.

    where: what error messages call the array.
    unit: whether floats lie in [0, 1]; if not, they lie in [0, 255].

    Raises DataError if the array holds no images.
    """
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype.kind not in "uif":
        raise DataError(f"{where}: {array.dtype} {array.shape} are no pictures (n rows columns 3)")
    if array.dtype == np.uint8:
        return array
    scaled = array * 255.0 if unit and array.dtype.kind == "f" else array
    if not array.size or not np.isfinite(scaled).all() or scaled.min() < 0 or scaled.max() > 255:
        raise DataError(f"{where}: values outside [0, {1 if unit else 255}] are no pictures")
    images: np.ndarray = np.rint(scaled).astype(np.uint8)
    return images


def is_unit_range(array: np.ndarray) -> bool:
    """Return whether an array looks like images of floats in [0, 1]."""
    return array.dtype.kind == "f" and array.size > 0 and float(array.max()) <= 1.0


def decode_images(encoded: Sequence[bytes], rows: int, columns: int, where: str) -> np.ndarray:
    """Decode compressed images, such as PNG or JPEG, to (n rows columns 3) uint8.

    Raises DataError, naming `where` and the frame, if an image is damaged or has another size.
    """
    pillow = import_optional("PIL.Image")
    frames = []
    for number, data in enumerate(encoded):
        try:
            with pillow.open(BytesIO(data)) as image:
                if (image.height, image.width) != (rows, columns):
                    raise ValueError(
                        f"{image.height} x {image.width} pixels instead of {rows} x {columns}"
                    )
                check_claimed_size(3 * rows * columns, len(data), f"{where}, frame {number}")
                frames.append(np.asarray(image.convert("RGB")))
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged image can make Pillow raise anything
            raise DataError(
                f"{where}, frame {number}: cannot be decoded ({one_line(error)})"
            ) from None
    return np.stack(frames) if frames else np.empty((0, rows, columns, 3), np.uint8)
