"""Makes film strips: one JPEG holds all frames that the player of a page shows."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from simplejpeg import encode_jpeg  # type: ignore[attr-defined]

# Maximum length in pixels of an image's longer side; larger images are shrunk by a whole factor.
MAX_SIDE = 160
# At most about this many steps are shown. If there are more steps, only every second step (or every
# third, and so on) and the last step are shown.
MAX_FRAMES = 120
# JPEG compresses square blocks; each side of a block has this many pixels. Pixels of one block
# affect each other, so no block should hold pixels of two frames.
BLOCK = 8
# JPEG qualities to try, in this order; the first quality whose JPEG is small enough is used.
QUALITIES = (92, 85, 75, 65, 50, 35)


@dataclass(frozen=True)
class FilmStrip:
    """A film strip, and the places of its frames.

    image: the JPEG as a data URI. Frame i is in row i // columns and column i % columns.
    columns: number of frames in a row of the image.
    width, height: size of each frame in pixels.
    cameras: for each camera, {"name", "x", "width", "height"}: its image's place in every frame.
    steps: for each frame, the index of the step that it shows (n).
    per_second: number of steps that are played in a second.
    """

    image: str
    columns: int
    width: int
    height: int
    cameras: Sequence[Mapping[str, str | int]]
    steps: Sequence[int]
    per_second: float

    @property
    def layout(self) -> dict[str, object]:
        """Return what the player needs in addition to the image."""
        names = ("columns", "width", "height", "cameras", "steps")
        return {name: getattr(self, name) for name in names} | {"perSecond": self.per_second}


def choose_steps(length: int) -> list[int]:
    """Return the indices of the steps to show: about MAX_FRAMES at most, and the last step."""
    return _every(ceil(length / MAX_FRAMES), length)


def make_strip(
    images: Mapping[str, np.ndarray], steps: Sequence[int], per_second: float, max_bytes: int
) -> FilmStrip:
    """Make a film strip of at most about `max_bytes`.

    If the strip would be too large, its quality is lowered first; then frames are left out.

    images: {camera: (n Y X 3) uint8}.
    steps: for each image, the index of the step that it shows (n).
    per_second: how many steps are played in a second.
    """
    every = 1
    while True:
        indices = _every(every, len(steps))
        grid, columns = _tile([frames[indices] for frames in images.values()])
        jpeg = _encode(grid, max_bytes)
        if len(jpeg) <= max_bytes or len(indices) <= 2:
            break
        every *= 2
    cameras: list[dict[str, str | int]] = []
    x = 0
    for name, frames in images.items():
        height, width = frames.shape[1:3]
        cameras.append({"name": name, "x": x, "width": width, "height": height})
        x += _whole_blocks(width)
    return FilmStrip(
        image=_data_uri(jpeg),
        columns=columns,
        width=x,
        height=max(_whole_blocks(frames.shape[1]) for frames in images.values()),
        cameras=cameras,
        steps=[steps[index] for index in indices],
        per_second=per_second,
    )


def encode_still(image: np.ndarray, max_bytes: int) -> str:
    """Encode an image (Y X 3) uint8 as the data URI of a JPEG of at most about `max_bytes`."""
    return _data_uri(_encode(np.ascontiguousarray(image), max_bytes))


def shrink(frames: np.ndarray, max_side: int) -> np.ndarray:
    """Shrink images (n Y X 3) by averaging blocks, so that no side is longer than `max_side`."""
    factor = ceil(max(frames.shape[1:3]) / max_side)
    if factor == 1:
        return frames
    height, width = (max(1, side // factor) for side in frames.shape[1:3])
    down, across = (min(factor, side) for side in frames.shape[1:3])
    # `//` rounds down; since half of the divisor is added first, the result is rounded to the
    # nearest integer.
    total = np.full((len(frames), height, width, 3), down * across // 2, np.uint32)
    for y, x in np.ndindex(down, across):
        total += frames[:, y : height * down : down, x : width * across : across]
    return np.asarray(total // (down * across), np.uint8)


def _every(step: int, length: int) -> list[int]:
    """Return every `step`-th index below `length`, and the last index."""
    return sorted({*range(0, length, step), length - 1})


def _tile(cameras: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """Tile the images (n Y X 3) of all cameras into an image (Y X 3) that is about square.

    In each frame, the cameras' images lie side by side. Each image is padded to whole JPEG blocks
    and to the height of the tallest image, by repeating its last row and column. Returns the
    large image, and the number of frames in each of its rows.
    """
    height = max(_whole_blocks(frames.shape[1]) for frames in cameras)
    padded = []
    for frames in cameras:
        below = height - frames.shape[1]
        right = _whole_blocks(frames.shape[2]) - frames.shape[2]
        padded.append(np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge"))
    frames = np.concatenate(padded, axis=2)
    count, height, width = frames.shape[:3]
    columns = min(count, max(1, round(sqrt(count * height / width))))
    rows = ceil(count / columns)
    # Copies of the last frame fill the rest of the last row.
    filled = np.concatenate([frames, np.repeat(frames[-1:], rows * columns - count, axis=0)])
    grid = filled.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(rows * height, columns * width, 3)), columns


def _whole_blocks(pixels: int) -> int:
    return ceil(pixels / BLOCK) * BLOCK


def _encode(image: np.ndarray, max_bytes: int) -> bytes:
    """Encode an image with the best quality that fits into `max_bytes`, or else with the lowest."""
    jpeg = b""
    for quality in QUALITIES:
        jpeg = bytes(encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="444"))
        if len(jpeg) <= max_bytes:
            break
    return jpeg


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
