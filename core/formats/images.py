"""Convert images to RGB uint8: arrays of any number type, and files such as PNG and JPEG."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np

from core.episodes.frames import Frames, Images, images_of, stretches_of
from core.errors import DataError
from core.formats.damage import check_claimed_size
from core.system.optional_imports import import_optional
from core.system.strict import one_line

# the values that may stand for white, in arrays of floats and of integers
WHITES = {"f": (1.0, 255.0), "u": (255.0, 65535.0), "i": (255.0, 65535.0)}
# What Pillow may take the bytes for. It would let Ghostscript run a PostScript file.
FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "GIF")
# Floats may exceed white by this share, since resizing overshoots at edges; they are then clipped.
OVERSHOOT = 1.25


def guess_white(array: Images) -> float:
    """Return which value stands for white in images: the least that no value exceeds."""
    kind = array.dtype.kind
    if kind not in WHITES or array.dtype == np.uint8:
        return 255.0
    usual = WHITES[kind]
    stretches = stretches_of(array) if array.ndim else [np.asarray(array)]
    most = max((float(stretch.max()) for stretch in stretches if stretch.size), default=0.0)
    return next((white for white in usual if most <= _limit(kind, white)), usual[-1])


def as_images(array: Images, where: str, white: float, *, told: bool = False) -> Images:
    """Convert images (n Y X 3) of any number type to uint8, in stretches if they are long.

    where: what error messages call the array.
    white: the value that becomes 255, as `guess_white` found it in another episode.
    told: whether the user has said what white is, so that a dark episode contradicts nothing.

    Raises DataError if the array holds no images, or if its values contradict `white`. If the
    images are long, the error is raised while they are read.
    """
    kind = array.dtype.kind
    if array.ndim != 4 or array.shape[3] != 3 or kind not in "uif":
        raise DataError(
            f"{where}: {array.dtype} {array.shape} are no pictures (n rows columns 3); name others "
            "under cameras"
        )
    if array.dtype == np.uint8:
        return array
    smaller = max((value for value in WHITES[kind] if value < white), default=0.0)
    brightest = 0.0

    def convert(start: int, stop: int) -> np.ndarray:
        nonlocal brightest
        stretch = array[start:stop]
        if not stretch.size or not np.isfinite(stretch).all():
            raise DataError(f"{where}: values that are not finite are no pictures; correct them")
        least, most = float(stretch.min()), float(stretch.max())
        brightest = max(brightest, most)
        if least < white - _limit(kind, white):
            raise DataError(
                f"{where}: a value of {least:g}, and a picture's are from 0 to {white:g}; shift "
                "and scale them before you import"
            )
        if most > _limit(kind, white):
            # another white would make the first episode black if its values are fractions
            way = "scale" if kind == "f" else f"say white = {guess_white(stretch):g}, or scale"
            raise DataError(
                f"{where}: a value of {most:g}, and white is {white:g} in the first episode; {way} "
                "the one or the other before you import, or leave the episode out"
            )
        if stop == len(array) and not told and 0 < brightest <= smaller:
            raise DataError(
                f"{where}: no value exceeds {brightest:g}, so white seems to be {smaller:g}, and "
                f"in the first episode it is {white:g}; correct the one or the other, or say white "
                f"= {white:g} if the episode is that dark"
            )
        return np.rint(stretch.clip(0, white) * (255.0 / white)).astype(np.uint8)

    if isinstance(array, Frames):  # the images as they are were long, so these are read later, too
        return Frames(array.shape, convert)
    return images_of(array.shape, convert)


def _limit(kind: str, white: float) -> float:
    """Return the largest value of images, of a kind of number, in which `white` is white."""
    return white * OVERSHOOT if kind == "f" else white


def encoded_size(data: bytes, where: str) -> tuple[int, int]:
    """Return the number of rows and of columns of a compressed image, without decoding it."""
    pillow = import_optional("PIL.Image")
    try:
        with pillow.open(BytesIO(data), formats=FORMATS) as image:
            return int(image.height), int(image.width)
    except Exception as error:  # noqa: BLE001 - a damaged image can make Pillow raise anything
        raise _undecodable(where, error) from None


def decode_images(encoded: Sequence[bytes], rows: int, columns: int, where: str) -> Images:
    """Decode compressed images, such as PNG or JPEG, to (n rows columns 3) uint8.

    Grey images, palettes and images of 16 bits per channel are converted, too.

    Raises DataError, naming `where` and the frame, if an image is damaged or has another size. If
    the images are long, the error is raised while they are read.
    """

    def decode(start: int, stop: int) -> np.ndarray:
        frames = [
            _as_rgb(
                _decode(encoded[number], rows, columns, f"{where}, frame {number}"),
                f"{where}, frame {number}",
            )
            for number in range(start, stop)
        ]
        return np.stack(frames) if frames else np.empty((0, rows, columns, 3), np.uint8)

    return images_of((len(encoded), rows, columns, 3), decode)


def decode_depth(encoded: Sequence[bytes], rows: int, columns: int, where: str) -> np.ndarray:
    """Decode compressed images of one channel to (n rows columns 1), of the type they have.

    Raises DataError as `decode_images` does, and for an image of several channels.
    """
    frames = []
    for number, data in enumerate(encoded):
        frame = _decode(data, rows, columns, f"{where}, frame {number}")
        if frame.ndim != 2:
            raise DataError(
                f"{where}, frame {number}: has {frame.shape[2]} channels, expected one; "
                "correct the shape that the dataset declares, or leave the feature out"
            )
        frames.append(frame[..., None])
    if not frames:
        raise DataError(f"{where}: holds no images; leave it out")
    return np.stack(frames)


def _decode(data: bytes, rows: int, columns: int, where: str) -> np.ndarray:
    """Decode one image to (Y X) or (Y X C); a palette becomes its colours."""
    pillow = import_optional("PIL.Image")
    try:
        with pillow.open(BytesIO(data), formats=FORMATS) as image:
            if (image.height, image.width) != (rows, columns):
                raise DataError(
                    f"{where}: has {image.height} x {image.width} pixels, expected {rows} x "
                    f"{columns}; correct the size that the dataset declares, or resize the images"
                )
            check_claimed_size(3 * rows * columns, len(data), where)
            plain = image.mode in ("L", "RGB", "I", "I;16", "I;16B", "I;16L", "F")
            return np.asarray(image if plain else image.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged image can make Pillow raise anything
        raise _undecodable(where, error) from None


def _undecodable(where: str, error: Exception) -> DataError:
    # Pillow's message for other files has an address in it
    is_other = type(error).__name__ == "UnidentifiedImageError"
    reason = "no kind of image that Pillow knows" if is_other else one_line(error)
    return DataError(f"{where}: cannot be decoded ({reason}); copy it again")


def _as_rgb(image: np.ndarray, where: str) -> np.ndarray:
    """Convert an image (Y X) or (Y X 3) to (Y X 3) uint8; wider integers have 16 bits.

    Raises DataError for other numbers, of which nothing says what white is.
    """
    if image.dtype != np.uint8:
        if image.dtype.kind == "f" or image.min() < 0 or image.max() > 65535:
            raise DataError(
                f"{where}: {image.dtype} from {image.min():g} to {image.max():g}, expected 8 or 16 "
                "bits; keep it as a depth feature, or convert it before you import"
            )
        image = np.rint(image.astype(np.float64) * (255 / 65535)).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
