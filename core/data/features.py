"""Named features as bytes: text of a fixed size, and how many frames are compressed together."""

from collections.abc import Sequence
from math import prod

import numpy as np

from core.data.codecs import LOSSLESS, Zstd
from core.data.contracts import Feature
from core.errors import DataError

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


def encode_text(texts: Sequence[str], size: int) -> np.ndarray:
    """n texts -> (n size) uint8: UTF-8, padded with zero bytes.

    Raises DataError for a text of more than `size` bytes, or one that does not come back as it was.
    """
    encoded = np.zeros((len(texts), size), np.uint8)
    for number, text in enumerate(texts):
        where = f"text {number}, {text[:60]!r}"
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}, is no Unicode ({error.reason}); write it again") from None
        if len(data) > size:
            raise DataError(f"{where}, takes {len(data)} bytes and has {size}; give it more room")
        if 0 in data:
            raise DataError(f"{where}, holds a zero character, which is padding; leave it out")
        encoded[number, : len(data)] = np.frombuffer(data, np.uint8)
    return encoded


def decode_text(encoded: np.ndarray) -> list[str]:
    """(n size) uint8, as `encode_text` made it -> n texts; raises DataError for no UTF-8."""
    texts = []
    for number, row in enumerate(encoded):
        try:
            texts.append(row.tobytes().rstrip(b"\0").decode())
        except UnicodeDecodeError as error:
            reason = f"no UTF-8 text ({error.reason})"
            raise DataError(f"frame {number}: {reason}; make it with core.encode_text") from None
    return texts
