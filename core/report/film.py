"""Rollouts as film strips: one JPEG per attempt holds all its frames, and a canvas plays them."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from core.report.inputs import Rollout

LARGEST_SIDE = 160  # pixels; larger frames are shrunk by a whole factor
MOST_FRAMES = 120  # of longer attempts every second, third ... frame is kept, and the last
STEPS_PER_SECOND = 20  # how fast a film plays, in looks of the policy
BLOCK = 8  # pixels: JPEG's blocks; frames that begin at a multiple do not bleed into each other
QUALITIES = (92, 85, 75, 65, 50, 35)  # the first whose strip is small enough


@dataclass(frozen=True)
class Film:
    """A film strip and where its frames lie.

    strip: JPEG as a data URI; frame i lies in row i // columns, column i % columns, each `width` x `height` pixels.
    cameras: {"name", "x", "width", "height"}: where a camera's picture lies within a frame.
    steps: (n) which of the attempt's looks each frame shows; a look lasts evaluate.execute control steps.
    gripper: (n) its opening, 0 closed to 1 open.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    strip: str
    columns: int
    width: int
    height: int
    cameras: Sequence[Mapping[str, str | int]]
    steps: Sequence[int]
    gripper: Sequence[float]

    @property
    def layout(self) -> dict[str, object]:
        """What the player needs to know."""
        names = ("columns", "width", "height", "cameras", "steps", "gripper")
        return {name: getattr(self, name) for name in names} | {"perSecond": STEPS_PER_SECOND}


def film(rollout: Rollout, most_bytes: int) -> Film:
    """Make a film strip of at most about `most_bytes`: a lower quality first, then fewer frames."""
    every = ceil(len(rollout.gripper) / MOST_FRAMES)
    images = {name: _shrink(frames) for name, frames in rollout.images.items()}
    while True:
        kept = sorted({*range(0, len(rollout.gripper), every), len(rollout.gripper) - 1})
        strip, columns = _strip([frames[kept] for frames in images.values()])
        jpeg = _encode(strip, most_bytes)
        if len(jpeg) <= most_bytes or len(kept) <= 2:
            break
        every *= 2
    cameras, width, height = _places(images)
    return Film(
        task=rollout.task,
        instruction=rollout.instruction,
        seed=rollout.seed,
        success=rollout.success,
        strip=f"data:image/jpeg;base64,{b64encode(jpeg).decode()}",
        columns=columns,
        width=width,
        height=height,
        cameras=cameras,
        steps=kept,
        gripper=[round(float(rollout.gripper[step]), 2) for step in kept],
    )


def _places(images: Mapping[str, np.ndarray]) -> tuple[list[dict[str, str | int]], int, int]:
    """The cameras side by side: where each lies, and the size of them all in whole blocks."""
    cameras: list[dict[str, str | int]] = []
    x = 0
    for name, frames in images.items():
        cameras.append({"name": name, "x": x, "width": frames.shape[2], "height": frames.shape[1]})
        x += _whole_blocks(frames.shape[2])
    return cameras, x, max(_whole_blocks(frames.shape[1]) for frames in images.values())


def _strip(cameras: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """Lay (n Y X 3) of every camera out in a strip (Y X 3) that is about square; return it and its columns."""
    padded = [_pad(frames, max(_whole_blocks(c.shape[1]) for c in cameras)) for frames in cameras]
    frames = np.concatenate(padded, axis=2)
    count, height, width = frames.shape[:3]
    columns = min(count, max(1, round(sqrt(count * height / width))))
    rows = ceil(count / columns)
    filled = np.concatenate([frames, np.repeat(frames[-1:], rows * columns - count, axis=0)])
    grid = filled.reshape(rows, columns, height, width, 3)
    return np.ascontiguousarray(grid.swapaxes(1, 2).reshape(rows * height, columns * width, 3)), columns


def _pad(frames: np.ndarray, height: int) -> np.ndarray:
    """Repeat the last rows and columns up to `height` and to whole blocks of width."""
    below, right = height - frames.shape[1], _whole_blocks(frames.shape[2]) - frames.shape[2]
    return np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")


def _whole_blocks(pixels: int) -> int:
    return ceil(pixels / BLOCK) * BLOCK


def _shrink(frames: np.ndarray) -> np.ndarray:
    """Average blocks of pixels, so that neither side is larger than LARGEST_SIDE."""
    factor = ceil(max(frames.shape[1:3]) / LARGEST_SIDE)
    if factor == 1:
        return frames
    height, width = (side // factor for side in frames.shape[1:3])
    blocks = frames[:, : height * factor, : width * factor].reshape(-1, height, factor, width, factor, 3)
    return np.asarray(blocks.mean(axis=(2, 4)).round().astype(np.uint8))


def _encode(strip: np.ndarray, most_bytes: int) -> bytes:
    from simplejpeg import encode_jpeg  # type: ignore[attr-defined]

    jpeg = b""
    for quality in QUALITIES:
        jpeg = bytes(encode_jpeg(strip, quality=quality, colorspace="RGB", colorsubsampling="444"))
        if len(jpeg) <= most_bytes:
            break
    return jpeg
