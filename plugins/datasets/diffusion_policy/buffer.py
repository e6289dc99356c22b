"""A replay buffer: the arrays of a zarr group, checked against the files that hold them.

zarr reads a missing chunk as zeros, and Blosc reads past the end of a truncated chunk. This module
raises an error in both cases.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any
from zipfile import ZipFile

import numpy as np

from core import DataError, one_line
from core.formats import check_claimed_size

ENDS = "meta/episode_ends"
# The codecs that turn bytes into numbers and do nothing else; any package may register others.
KNOWN_CODECS = re.compile(
    "blosc|zstd|zlib|gzip|lz4|delta|shuffle|vlen-utf8|imagecodecs_[a-z0-9]+|"
    "(Blosc|Zstd|Gzip|Bytes|Crc32c|Transpose|Sharding|VLenUTF8)Codec"
)
# the header of a Blosc chunk holds the sizes, in bytes, of the decompressed chunk, of a block, and
# of the compressed chunk
BLOSC_HEADER = Struct("<4xIII")


class ReplayBuffer:
    """The array ENDS and the arrays in data/, in a folder name.zarr or an archive name.zarr.zip.

    A pickled copy of this object opens the files again. Damaged data raise a DataError that
    names the damaged chunk, or only the array if no such chunk is found.

    allows_missing: whether a chunk without a file is a chunk of zeros.
    """

    def __init__(self, path: Path, allows_missing: bool = False) -> None:
        self.path, self.allows_missing = path, allows_missing
        self._sizes = _file_sizes(path)

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """{name: array}; the contents are not read yet."""
        group = _open(self.path)
        try:
            if "data" not in group or ENDS not in group:
                names = ", ".join(sorted(group)[:8]) or "nothing"
                raise DataError(
                    f"{self.path}: has no data/ or no {ENDS}, so it is no replay buffer; it holds "
                    f"{names}"
                )
            arrays = {**dict(sorted(group["data"].arrays())), ENDS: group[ENDS]}
            for name, array in arrays.items():
                if 0 in array.chunks:
                    raise ValueError(f"the chunks of {name} hold nothing")
            return arrays
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - each codec fails in its own way
            raise DataError(
                f"{self.path}: its arrays cannot be opened ({one_line(error)}); copy it again, "
                "or where a codec is missing, pip install imagecodecs, or where an array holds "
                "Python objects, remove it"
            ) from None

    @cached_property
    def _archive(self) -> ZipFile:
        return ZipFile(self.path)

    def check_claimed_size(self, name: str) -> None:
        """Raise DataError if an array claims more bytes than its files can hold."""
        array = self.arrays[name]
        stored = sum(
            size for file, size in self._sizes.items() if file.startswith(f"{array.path}/")
        )
        if self.allows_missing:
            # a chunk that has no file takes no memory until it is read
            chunk = prod(array.chunks) * array.dtype.itemsize
            check_claimed_size(chunk, max(stored, 1), f"{self.path}, {array.path}")
            return
        check_claimed_size(array.nbytes, stored, f"{self.path}, {array.path}")

    def read(self, name: str, begin: int, end: int) -> np.ndarray:
        """Read the rows begin..end-1 of an array.

        Raises DataError for a missing or damaged chunk, and for an array that was pickled.
        """
        array = self.arrays[name]
        if unknown := sorted(name for name in _codecs(array) if not KNOWN_CODECS.fullmatch(name)):
            raise DataError(
                f"{self.path}: {array.path} is encoded by '{unknown[0]}', which is not decoded, "
                "since it might run code (pickle does); write it as numbers or text, or name "
                "another array"
            )
        try:
            for index in _chunk_indices(array, begin, end):
                self._check_chunk(array, _chunk_file(array, index))
            return np.asarray(array[begin:end])
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - each codec fails in its own way
            raise DataError(
                f"{self.path}: {_first_unreadable(array, begin, end)} cannot be read "
                f"({one_line(error)}); copy it again"
            ) from None

    def _check_chunk(self, array: Any, file: str) -> None:
        """Raise DataError if a chunk is missing or empty, or if its Blosc header is wrong."""
        if file not in self._sizes:
            if self.allows_missing:
                return
            raise DataError(
                f"{self.path}: the chunk {file} is not there; copy it again, or say "
                'missing_chunks = "zeros" if zarr-python 3 wrote the buffer, which leaves such '
                "chunks out"
            )
        if not self._sizes[file]:
            raise DataError(f"{self.path}: the chunk {file} is empty; copy it again")
        if "blosc" not in _codecs(array):
            return
        is_folder = self.path.is_dir()
        stream = (self.path / file).open("rb") if is_folder else self._archive.open(file)
        with stream:
            header = stream.read(BLOSC_HEADER.size)
            size = stream.seek(0, 2)
        most = prod(array.chunks) * array.dtype.itemsize
        if len(header) == BLOSC_HEADER.size:
            unpacked, block, packed = BLOSC_HEADER.unpack(header)
            if packed == size and block <= unpacked <= most:
                return
        raise DataError(f"{self.path}: the chunk {file} is damaged or cut off; copy it again")

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "allows_missing": self.allows_missing,
            "_sizes": self._sizes,
        }


def _open(path: Path) -> Any:
    """Open the root group; raises DataError if there is none."""
    import zarr
    from zarr.storage import ZipStore

    # the format uses a JPEG 2000 codec, which the package imagecodecs provides if it is installed
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:
        pass
    else:
        register_codecs(verbose=False)
    try:
        return zarr.open_group(path if path.is_dir() else ZipStore(path, mode="r"), mode="r")
    except Exception as error:  # noqa: BLE001 - not there, no group, no archive
        raise _no_group(path, error) from None


def _file_sizes(path: Path) -> dict[str, int]:
    """Return {file: size in bytes} of a folder or archive; raises DataError if there is neither."""
    try:
        if path.is_dir():
            entries = [entry for entry in path.rglob("*") if not entry.is_dir()]
            files = [entry for entry in entries if entry.is_file()]
            if len(files) < len(entries):  # reading a pipe would never end
                raise ValueError(f"{min({*entries} - {*files})} is no file")
            return {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
        with ZipFile(path) as archive:
            sizes = {member.filename: member.compress_size for member in archive.infolist()}
        if sum(sizes.values()) > path.stat().st_size:
            raise ValueError("its list of files claims more bytes than it has")
        return sizes
    except Exception as error:  # noqa: BLE001 - damaged bytes make zipfile raise almost anything
        raise _no_group(path, error) from None


def _no_group(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: holds no zarr group ({one_line(error)}); name a replay buffer's .zarr"
    )


def _codecs(array: Any) -> set[str]:
    """Return the names of an array's codecs: those of numcodecs, or the classes of zarr's own."""
    codecs = (*array.filters, *array.compressors)
    if array.metadata.zarr_format == 3:
        codecs += (array.serializer,)
    return {getattr(codec, "codec_id", None) or type(codec).__name__ for codec in codecs}


def _chunk_indices(array: Any, begin: int, end: int) -> Iterator[tuple[int, ...]]:
    """Return the indices, one per axis, of the chunks or shards that hold the rows begin..end-1."""
    lengths = array.shards or array.chunks
    rows = range(begin // lengths[0], -(-end // lengths[0]))
    other_axes = [
        range(-(-length // step)) for length, step in zip(array.shape[1:], lengths[1:], strict=True)
    ]
    return product(rows, *other_axes)


def _chunk_file(array: Any, index: Sequence[int]) -> str:
    return f"{array.path}/{array.metadata.encode_chunk_key(tuple(index))}"


def _first_unreadable(array: Any, begin: int, end: int) -> str:
    """Return the name of the first unreadable chunk, or of the array if no such chunk is found.

    The chunks of an array with shards are not tried.
    """
    for index in () if array.shards else _chunk_indices(array, begin, end):
        try:
            array.get_block_selection(index)
        except Exception:  # noqa: BLE001 - each codec fails in its own way
            return f"the chunk {_chunk_file(array, index)}"
    return str(array.path)
