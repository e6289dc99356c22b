"""Text as a feature: UTF-8 in a fixed number of bytes for each frame."""

from collections.abc import Sequence

import numpy as np

from core.errors import DataError


def encode_text(texts: Sequence[str], size: int) -> np.ndarray:
    """Encode n texts as UTF-8, each padded with zero bytes -> (n size) uint8.

    Raises DataError for a text that takes more than `size` bytes or is not valid Unicode, and for
    a text with a zero character, which `decode_text` might not return unchanged.
    """
    encoded = np.zeros((len(texts), size), np.uint8)
    for number, text in enumerate(texts):
        where = f"text {number}, {text[:60]!r}"
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}, is no Unicode ({error.reason}); write it again") from None
        if len(data) > size:
            raise DataError(
                f"{where}, takes {len(data)} bytes and has room for {size}; give it more"
            )
        if 0 in data:
            raise DataError(f"{where}, holds a zero character, which is padding; leave it out")
        encoded[number, : len(data)] = np.frombuffer(data, np.uint8)
    return encoded


def decode_text(encoded: np.ndarray) -> list[str]:
    """Decode the result of `encode_text` -> n texts; raises DataError if a row is not UTF-8."""
    texts = []
    for number, row in enumerate(encoded):
        try:
            texts.append(row.tobytes().rstrip(b"\0").decode())
        except UnicodeDecodeError as error:
            reason = f"no UTF-8 text ({error.reason})"
            raise DataError(f"frame {number}: {reason}; make it with core.encode_text") from None
    return texts
