"""Named features as bytes: text of a fixed size, and how many frames are compressed together."""

from math import prod

import numpy as np

from core.episodes.episode import Feature
from core.store.codecs import LOSSLESS, Zstd

GROUP_BYTES = 2**15  # of frames in a group: to read one of them, all are decoded
MOST_FRAMES = 256  # in a group


def feature_codec(feature: Feature) -> Zstd:
    """Return the lossless codec of a feature, whose groups hold about 32 KiB of frames.

    Frames that are larger come eight in a group, as a lossless camera's do, so that what stands
    still in them costs nothing.
    """
    fitting = GROUP_BYTES // feature.frame_bytes
    return Zstd(min(MOST_FRAMES, max(LOSSLESS.group, fitting)))


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """See C-contiguous frames (n ...) of any dtype as their bytes, (n bytes) uint8: a view."""
    return frames.reshape(len(frames), prod(frames.shape[1:])).view(np.uint8)
