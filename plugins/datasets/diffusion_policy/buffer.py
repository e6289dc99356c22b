"""A replay buffer's arrays, read without trust: zarr takes chunks that are not there for zeros."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from struct import Struct
from typing import IO, Any
from zipfile import ZipFile

import numpy as np

from core import DataError, one_line
from core.formats import check_claimed_size

ENDS = "meta/episode_ends"
BLOSC_HEADER = Struct("<4xIII")  # bytes when unpacked, in a block of them, and in the chunk


class ReplayBuffer:
    """The arrays of a folder name.zarr or an archive name.zarr.zip: those in data/ by name, and
    ENDS.

    Raises DataError, naming the array, and the chunk where one is damaged. A pickled copy opens its
    own files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sizes = _sizes(path)

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The arrays, whose content is not read yet."""
        group = _open(self.path)
        try:
            arrays = {**dict(sorted(group["data"].arrays())), ENDS: group[ENDS]}
            for name, array in arrays.items():
                if "pickle" in _codecs(array):
                    raise ValueError(f"{name} is pickled, which might run code")
                if 0 in array.chunks:
                    raise ValueError(f"the chunks of {name} hold nothing")
            return arrays
        except Exception as error:  # noqa: BLE001 - each codec fails in its own way
            raise DataError(
                f"{self.path}: its arrays cannot be opened ({one_line(error)}); copy it again, or where a codec is "
                "missing, pip install imagecodecs"
            ) from None

    @cached_property
    def _archive(self) -> ZipFile:
        return ZipFile(self.path)

    def check_claimed_size(self, name: str) -> None:
        """Raise DataError where an array claims more than its files can hold."""
        array = self.arrays[name]
        there = sum(size for file, size in self._sizes.items() if file.startswith(f"{array.path}/"))
        check_claimed_size(array.nbytes, there, f"{self.path}, {array.path}")

    def read(self, name: str, begin: int, end: int) -> np.ndarray:
        """Some rows of an array, all of which must be there."""
        array = self.arrays[name]
        try:
            for place in _places(array, begin, end):
                self._raise_unless_whole(array, _chunk(array, place))
            return np.asarray(array[begin:end])
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - each codec fails in its own way
            said = f"{_damaged(array, begin, end)} cannot be read ({one_line(error)})"
            raise DataError(f"{self.path}: {said}; copy it again") from None

    def _raise_unless_whole(self, array: Any, chunk: str) -> None:
        if not self._sizes.get(chunk):
            raise DataError(f"{self.path}: the chunk {chunk} is not there, or empty; copy it again")
        if "blosc" not in _codecs(array):
            return
        with self._stream(chunk) as stream:
            header = stream.read(BLOSC_HEADER.size)
            size = stream.seek(0, 2)
        if not _is_blosc(header, size, prod(array.chunks) * array.dtype.itemsize):
            raise DataError(f"{self.path}: the chunk {chunk} is damaged or cut off; copy it again")

    def _stream(self, file: str) -> IO[bytes]:
        return (self.path / file).open("rb") if self.path.is_dir() else self._archive.open(file)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_sizes": self._sizes}


def _open(path: Path) -> Any:
    """Open the root group; raises DataError where there is none."""
    import zarr
    from zarr.storage import ZipStore

    _register_codecs()
    try:
        return zarr.open_group(path if path.is_dir() else ZipStore(path, mode="r"), mode="r")
    except Exception as error:  # noqa: BLE001 - not there, no group, no archive
        raise DataError(
            f"{path}: holds no zarr group ({one_line(error)}); name a replay buffer's .zarr"
        ) from None


def _register_codecs() -> None:
    """The format's own JPEG 2000 comes from imagecodecs, where that is installed."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:
        return
    register_codecs(verbose=False)


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of every file in a folder or an archive; raises DataError where neither is there."""
    try:
        if path.is_dir():
            files = [file for file in path.rglob("*") if file.is_file()]
            return {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
        with ZipFile(path) as archive:
            sizes = {member.filename: member.compress_size for member in archive.infolist()}
        if sum(sizes.values()) > path.stat().st_size:
            raise ValueError("its list of files claims more bytes than it has")
        return sizes
    except Exception as error:  # noqa: BLE001 - damaged bytes make zipfile raise almost anything
        raise DataError(
            f"{path}: holds no zarr group ({one_line(error)}); name a replay buffer's .zarr"
        ) from None


def _codecs(array: Any) -> set[str]:
    return {getattr(codec, "codec_id", "") for codec in (*array.filters, *array.compressors)}


def _is_blosc(header: bytes, size: int, most: int) -> bool:
    """Whether a chunk of that size unpacks to no more than `most` bytes: Blosc would read past the
    end otherwise.
    """
    if len(header) != BLOSC_HEADER.size:
        return False
    unpacked, block, packed = BLOSC_HEADER.unpack(header)
    return bool(packed == size and block <= unpacked <= most)


def _places(array: Any, begin: int, end: int) -> Iterator[tuple[int, ...]]:
    """Which chunks some rows of an array lie in, by their place in each axis."""
    lengths = array.shards or array.chunks
    rows = range(begin // lengths[0], -(-end // lengths[0]))
    others = [
        range(-(-length // step)) for length, step in zip(array.shape[1:], lengths[1:], strict=True)
    ]
    return product(rows, *others)


def _chunk(array: Any, place: Sequence[int]) -> str:
    return f"{array.path}/{array.metadata.encode_chunk_key(tuple(place))}"


def _damaged(array: Any, begin: int, end: int) -> str:
    """The first chunk that cannot be read by itself, or the array."""
    for place in () if array.shards else _places(array, begin, end):
        try:
            array.get_block_selection(place)
        except Exception:  # noqa: BLE001
            return f"the chunk {_chunk(array, place)}"
    return str(array.path)
