"""Film strips: one JPEG holds all frames of a rollout or an episode, and a canvas plays them."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from core.report.inputs import Rollout

LARGEST_SIDE = 160  # pixels; larger frames are shrunk by a whole factor
MOST_FRAMES = (
    120  # of longer attempts and episodes every second, third ... frame is kept, and the last
)
LOOKS_PER_SECOND = 20  # how fast a rollout plays, in looks of the policy
BLOCK = 8  # pixels: JPEG's blocks; frames that begin at a multiple do not bleed into each other
QUALITIES = (92, 85, 75, 65, 50, 35)  # the first whose picture is small enough


@dataclass(frozen=True)
class Strip:
    """A film strip and where its frames lie.

    picture: JPEG as a data URI; frame i lies in row i // columns, column i % columns, each `width`
    x `height` pixels.
    cameras: {"name", "x", "width", "height"}: where a camera's picture lies within a frame.
    steps: (n) which step each frame shows; per_second: steps in a second of the film.
    """

    picture: str
    columns: int
    width: int
    height: int
    cameras: Sequence[Mapping[str, str | int]]
    steps: Sequence[int]
    per_second: float

    @property
    def layout(self) -> dict[str, object]:
        """What the player needs to know."""
        names = ("columns", "width", "height", "cameras", "steps")
        return {name: getattr(self, name) for name in names} | {"perSecond": self.per_second}


@dataclass(frozen=True)
class Film:
    """A recorded attempt as a film strip; its steps are the policy's looks, each evaluate.replan_steps
    control steps long.

    gripper: its opening at each frame of the strip, 0 closed to 1 open.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    strip: Strip
    gripper: Sequence[float]

    @property
    def layout(self) -> dict[str, object]:
        """What the player needs to know."""
        return self.strip.layout | {"unit": "look", "gripper": self.gripper}


def film(rollout: Rollout, most_bytes: int) -> Film:
    """Make a film of an attempt, of at most about `most_bytes`."""
    steps = kept_steps(len(rollout.gripper))
    images = {name: shrink(frames[steps], LARGEST_SIDE) for name, frames in rollout.images.items()}
    strip = make_strip(images, steps, LOOKS_PER_SECOND, most_bytes)
    return Film(
        task=rollout.task,
        instruction=rollout.instruction,
        seed=rollout.seed,
        success=rollout.success,
        strip=strip,
        gripper=[round(float(rollout.gripper[step]), 2) for step in strip.steps],
    )


def kept_steps(length: int) -> list[int]:
    """Which of `length` steps a film shows: all, or of more than MOST_FRAMES every second, third
    ... and the last.
    """
    return _every(ceil(length / MOST_FRAMES), length)


def make_strip(
    images: Mapping[str, np.ndarray], steps: Sequence[int], per_second: float, most_bytes: int
) -> Strip:
    """Lay out frames {camera: (n Y X 3) uint8} of `steps` (n) as a film strip of at most about
    `most_bytes`.

    A lower quality first, then fewer frames.
    """
    every = 1
    while True:
        kept = _every(every, len(steps))
        strip, columns = _strip([frames[kept] for frames in images.values()])
        jpeg = _encode(strip, most_bytes)
        if len(jpeg) <= most_bytes or len(kept) <= 2:
            break
        every *= 2
    cameras, width, height = _places(images)
    shown = [steps[index] for index in kept]
    return Strip(_data_uri(jpeg), columns, width, height, cameras, shown, per_second)


def still(picture: np.ndarray, most_bytes: int) -> str:
    """A picture (Y X 3) uint8 as the data URI of a JPEG of at most about `most_bytes`."""
    return _data_uri(_encode(np.ascontiguousarray(picture), most_bytes))


def shrink(frames: np.ndarray, largest_side: int) -> np.ndarray:
    """Average blocks of pixels of (n Y X 3), so that neither side is larger than `largest_side`."""
    factor = ceil(max(frames.shape[1:3]) / largest_side)
    if factor == 1:
        return frames
    height, width = (max(1, side // factor) for side in frames.shape[1:3])
    down, across = (min(factor, side) for side in frames.shape[1:3])
    total = np.full((len(frames), height, width, 3), down * across // 2, np.uint32)
    for y, x in np.ndindex(down, across):
        total += frames[:, y : height * down : down, x : width * across : across]
    return np.asarray(total // (down * across), np.uint8)


def _every(step: int, length: int) -> list[int]:
    return sorted({*range(0, length, step), length - 1})


def _places(images: Mapping[str, np.ndarray]) -> tuple[list[dict[str, str | int]], int, int]:
    """The cameras side by side: where each lies, and the size of them all in whole blocks."""
    cameras: list[dict[str, str | int]] = []
    x = 0
    for name, frames in images.items():
        cameras.append({"name": name, "x": x, "width": frames.shape[2], "height": frames.shape[1]})
        x += _whole_blocks(frames.shape[2])
    return cameras, x, max(_whole_blocks(frames.shape[1]) for frames in images.values())


def _strip(cameras: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """Lay (n Y X 3) of every camera out in a strip (Y X 3) that is about square; return it and its
    columns.
    """
    padded = [_pad(frames, max(_whole_blocks(c.shape[1]) for c in cameras)) for frames in cameras]
    frames = np.concatenate(padded, axis=2)
    count, height, width = frames.shape[:3]
    columns = min(count, max(1, round(sqrt(count * height / width))))
    rows = ceil(count / columns)
    filled = np.concatenate([frames, np.repeat(frames[-1:], rows * columns - count, axis=0)])
    grid = filled.reshape(rows, columns, height, width, 3)
    return np.ascontiguousarray(
        grid.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    ), columns


def _pad(frames: np.ndarray, height: int) -> np.ndarray:
    """Repeat the last rows and columns up to `height` and to whole blocks of width."""
    below, right = height - frames.shape[1], _whole_blocks(frames.shape[2]) - frames.shape[2]
    return np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")


def _whole_blocks(pixels: int) -> int:
    return ceil(pixels / BLOCK) * BLOCK


def _encode(strip: np.ndarray, most_bytes: int) -> bytes:
    from simplejpeg import encode_jpeg  # type: ignore[attr-defined]

    jpeg = b""
    for quality in QUALITIES:
        jpeg = bytes(encode_jpeg(strip, quality=quality, colorspace="RGB", colorsubsampling="444"))
        if len(jpeg) <= most_bytes:
            break
    return jpeg


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
