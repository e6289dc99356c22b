"""CALVIN's language annotations: a dictionary that numpy pickled, read without running what a
pickle could run.
"""

import pickle
from collections.abc import Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from pickletools import genops
from typing import Any, BinaryIO

import numpy as np

from core import DataError, one_line
from core.formats import file_size

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_annotations(path: Path) -> Any:
    """Read the dictionary, as far as it is plain data and arrays; raises DataError that names the
    file.
    """
    if not path.exists():
        raise DataError(f"{path}: not there; name a split's training or validation folder")
    file_size(path)
    try:
        stream = BytesIO(path.read_bytes())
        HEADERS[np.lib.format.read_magic(stream)](stream)
        _raise_if_inflated(stream)
        return _PlainData(stream, path).load().item()
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way
        raise DataError(f"{path}: damaged ({one_line(error)}); copy it again") from None


def _raise_if_inflated(stream: BytesIO) -> None:
    """Raise ValueError where a pickle claims more bytes, or more remembered objects, than follow in
    the stream.

    The unpickler would allocate them first.
    """
    begin, size = stream.tell(), len(stream.getvalue())
    for operation, argument, _ in genops(stream):  # raises for bytes that are not there
        if (
            operation.name in ("PUT", "LONG_BINPUT")
            and isinstance(argument, int)
            and argument > size
        ):
            raise ValueError(f"it remembers {argument:,} objects in {size:,} bytes")
    stream.seek(begin)


class _Array(np.ndarray):
    """An array that gets its content after it was made, as numpy pickles them, and is no larger
    than that.
    """

    def __new__(cls, *_: Any) -> "_Array":
        return super().__new__(cls, (0,))

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, content = state
        if prod(shape) * (dtype.itemsize if isinstance(content, bytes) else 1) > len(content):
            raise ValueError(f"an array {shape} in {len(content):,} bytes")
        super().__setstate__(state)


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    """One of numpy's numbers out of its bytes."""
    return np.frombuffer(content, dtype)[0]


class _PlainData(pickle.Unpickler):
    """Knows numpy's arrays and numbers, and nothing that could run code."""

    known: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): np.dtype,
    } | {
        (f"numpy.{package}.multiarray", name): stands_for
        for package in ("core", "_core")
        for name, stands_for in (("_reconstruct", _Array), ("scalar", _scalar))
    }

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Refuse what is no plain data."""
        if (module, name) not in self.known:
            asked = f"{module}.{name}"
            raise DataError(
                f"{self.path}: asks for {asked}, which is no data and might run code; not loaded"
            )
        return self.known[module, name]
