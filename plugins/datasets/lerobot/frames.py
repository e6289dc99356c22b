"""An episode's frames out of a video."""

from pathlib import Path
from typing import Any

import numpy as np

from core import DataError, import_optional, one_line
from core.episodes import Camera
from core.formats import file_size

EDGE = 256  # pixels by which a codec's blocks may reach past the picture


def decode_video(path: Path, first: float, count: int, fps: float, camera: Camera) -> np.ndarray:
    """Decode `count` frames from second `first` on -> (count Y X 3) uint8, as FFmpeg gives them in
    RGB.

    Raises DataError that names the file, and the frame where one is missing or of another size.
    """
    file_size(path)
    found: dict[int, np.ndarray] = {}
    av = import_optional("av", extra="lerobot")
    try:
        with av.open(
            str(path), format="mp4"
        ) as container:  # no playlist, which would name other files
            stream = container.streams.video[0]
            _raise_unless_of_size(stream.codec_context, camera)
            stream.codec_context.options = {
                "max_pixels": str((camera.height + EDGE) * (camera.width + EDGE))
            }
            begin = max(0.0, first - 0.5 / fps)
            container.seek(
                int(begin / stream.time_base), stream=stream
            )  # to the last key frame before
            for frame in container.decode(stream):
                number = round((frame.time - first) * fps)
                if number >= count:
                    break
                if number >= 0:
                    found[number] = _pixels(frame, camera)
    except Exception as error:  # noqa: BLE001 - FFmpeg's errors have no common kind
        raise DataError(f"{path}: cannot be decoded ({one_line(error)}); copy it again") from None
    if missing := [number for number in range(count) if number not in found]:
        raise DataError(
            f"{path}: lacks frame {missing[0]} of {count} from second {first:.2f} on; copy it again"
        )
    return np.stack([found[number] for number in range(count)])


def _pixels(frame: Any, camera: Camera) -> np.ndarray:
    _raise_unless_of_size(frame, camera)
    if frame.is_corrupt:
        raise ValueError(f"a damaged frame at second {frame.time:.2f}")
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return pixels


def _raise_unless_of_size(picture: Any, camera: Camera) -> None:
    if (picture.height, picture.width) != (camera.height, camera.width):
        said = f"{camera.height} x {camera.width}"
        raise ValueError(
            f"frames of {picture.height} x {picture.width} pixels, and meta/ says {said}"
        )
