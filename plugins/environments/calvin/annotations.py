"""CALVIN's language annotations: a dictionary that numpy pickled.

A pickle can run any code and allocate any amount of memory. This reader therefore unpickles only
plain data and arrays, and compares the sizes that they claim with the number of bytes in the file.
"""

import pickle
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
    """Read the dictionary; raises DataError if it is damaged or holds more than plain data."""
    if not path.exists():
        raise DataError(f"{path}: not there; name a split's training or validation folder")
    file_size(path)
    try:
        stream = BytesIO(path.read_bytes())
        HEADERS[np.lib.format.read_magic(stream)](stream)
        _check_claims(stream)
        return _PlainData(stream, path).load().item()
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way
        raise DataError(f"{path}: damaged ({one_line(error)}); copy it again") from None


def _check_claims(stream: BytesIO) -> None:
    """Raise ValueError if a pickle claims more data or memoised objects than it has bytes.

    Without this check, the unpickler would allocate the claimed sizes before it reads the data.
    """
    begin, size = stream.tell(), len(stream.getvalue())
    for operation, argument, _ in genops(stream):  # genops: ValueError if bytes are missing
        is_memo = operation.name in ("PUT", "LONG_BINPUT")
        if is_memo and isinstance(argument, int) and argument > size:
            raise ValueError(f"it remembers {argument:,} objects in {size:,} bytes")
    stream.seek(begin)


class _Array(np.ndarray):
    """An array that is made empty and filled later, which is how numpy unpickles arrays.

    Raises ValueError if the array claims more bytes than the pickle holds for it.
    """

    def __new__(cls, *_: Any) -> "_Array":
        return super().__new__(cls, (0,))

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, content = state
        if prod(shape) * (dtype.itemsize if isinstance(content, bytes) else 1) > len(content):
            raise ValueError(f"an array {shape} in {len(content):,} bytes")
        super().__setstate__(state)


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    """Return the numpy scalar that some bytes stand for."""
    return np.frombuffer(content, dtype)[0]


# {(module, name) in a pickle: the object that the unpickler uses for it}; numpy 1 writes the module
# numpy.core, numpy 2 writes numpy._core
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): np.dtype,
}
for _package in ("core", "_core"):
    _ALLOWED[f"numpy.{_package}.multiarray", "_reconstruct"] = _Array
    _ALLOWED[f"numpy.{_package}.multiarray", "scalar"] = _scalar


class _PlainData(pickle.Unpickler):
    """Unpickles only plain data and numpy's arrays and scalars, none of which can run code."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return the object for a name in the pickle; raises DataError if it is not in _ALLOWED."""
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"{self.path}: asks for {module}.{name}, which is no data and might run code, so "
                "it is not loaded; write the annotations as plain data and arrays"
            )
        return _ALLOWED[module, name]
