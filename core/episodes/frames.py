"""Images that are read when they are needed, so that long episodes fit into memory."""

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

# An episode whose images take at most this many bytes is read whole, which saves time.
WHOLE_BYTES = 2**26
UINT8 = np.dtype(np.uint8)
Read = Callable[[int, int], np.ndarray]


class Frames:
    """Images (n Y X 3) that are read in stretches: `frames[10:20]` reads ten of them.

    A writer asks for stretches in order, so a reader that decodes a video can go on where the
    stretch before ended.

    read: returns the images from one index up to another, (m Y X 3).
    dtype: uint8, or how a format holds them before they are converted.
    """

    ndim = 4

    def __init__(self, shape: tuple[int, ...], read: Read, dtype: np.dtype = UINT8) -> None:
        self.shape, self.dtype = shape, dtype
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, stretch: slice) -> np.ndarray:
        start, stop, step = stretch.indices(len(self))
        if step != 1:
            raise ValueError(f"images are read in stretches without gaps, not with step {step}")
        return self._read(start, max(start, stop))

    @property
    def size(self) -> int:
        """Number of values of all images."""
        return prod(self.shape)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype)


Images = np.ndarray | Frames
"""Images of one camera in an episode, (n Y X 3) uint8: an array, or images that are read later."""


def images_of(shape: tuple[int, ...], read: Read, dtype: np.dtype = UINT8) -> Images:
    """Return images (n Y X 3) as an array if they take little memory, and else as `Frames`."""
    is_small = prod(shape) * dtype.itemsize <= WHOLE_BYTES
    return read(0, shape[0]) if is_small else Frames(shape, read, dtype)


def stretches_of(images: Images) -> Iterator[np.ndarray]:
    """Yield all images in order, in stretches (m Y X 3) that take little memory each."""
    frame_bytes = max(1, prod(images.shape[1:]) * images.dtype.itemsize)
    step = max(1, WHOLE_BYTES // frame_bytes)
    for start in range(0, len(images), step):
        yield images[start : start + step]
