"""Read numpy's files, and check that each holds as many bytes as its header claims."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from math import prod
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from core.errors import DataError, did_you_mean
from core.formats.damage import file_size
from core.system.strict import one_line

HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


REFUSED = (
    "holds Python objects, which might run code and are not loaded; save it as numbers or text"
)


class _PythonObjectsError(Exception):
    """An array holds Python objects: reading it would unpickle them, which can run any code."""


def read_npz(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file, or the arrays in `names`; the result is read-only.

    An array of Python objects is left out, since reading it would unpickle it, and unpickling can
    run any code.

    names: default: all arrays.

    Raises DataError, naming the file, if the file is missing, damaged or cut off, or if an array in
    `names` is missing or holds Python objects.
    """
    file_size(file)
    with _open_npz(file) as (archive, members):
        arrays = {}
        for name in members if names is None else names:
            if name not in members:
                raise DataError(f"{file}: has no array '{name}'{did_you_mean(name, [*members])}")
            try:
                arrays[name] = _parse_npy(_read_member(archive, members[name]))
            except _PythonObjectsError:
                if names is not None:
                    raise DataError(f"{file}: '{name}' {REFUSED}") from None
    return arrays


def npz_names(file: Path) -> list[str]:
    """Return the names of all arrays in an .npz file, also of those that `read_npz` leaves out.

    Raises DataError, naming the file, if the file is missing, damaged or cut off.
    """
    file_size(file)
    with _open_npz(file) as (_, members):
        return [*members]


@contextmanager
def _open_npz(file: Path) -> Iterator[tuple[ZipFile, dict[str, ZipInfo]]]:
    """Open an .npz file, with {array: its place}; raises DataError for damage inside the block."""
    try:
        with ZipFile(file) as archive:
            packed = sum(member.compress_size for member in archive.infolist())
            # they may also share bytes, which would be unpacked once for each
            if packed > (size := file.stat().st_size):
                raise BadZipFile(f"its arrays claim {packed:,} bytes of a file of {size:,}")
            members = {
                member.filename.removesuffix(".npy"): member
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
            yield archive, members
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damage can make zipfile and numpy raise anything
        raise DataError(
            f"{file}: damaged or no .npz file ({one_line(error)}); copy it again"
        ) from None


def read_npy(file: Path) -> np.ndarray:
    """Read the array of an .npy file, read-only; raises DataError as `read_npz` does."""
    file_size(file)
    try:
        return _parse_npy(file.read_bytes())
    except _PythonObjectsError:
        raise DataError(f"{file}: {REFUSED}") from None
    except Exception as error:  # noqa: BLE001 - damage makes numpy raise almost anything
        raise DataError(
            f"{file}: damaged or no .npy file ({one_line(error)}); copy it again"
        ) from None


def _parse_npy(data: bytes) -> np.ndarray:
    """Return the array in the bytes of an .npy file, as a view of these bytes.

    Raises ValueError if the bytes are more or fewer than the header says, and
    _PythonObjectsError for an array of Python objects.
    """
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in HEADER_READERS:
        raise ValueError(f"version {version} of numpy's format")
    shape, fortran_order, dtype = HEADER_READERS[version](stream)
    if dtype.hasobject:
        raise _PythonObjectsError
    claimed, available = prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if claimed != available:
        raise ValueError(f"{dtype} {shape} take {claimed:,} bytes, and {available:,} are there")
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if fortran_order else "C")


def _read_member(archive: ZipFile, member: ZipInfo) -> bytes:
    """Return the bytes of one file in a zip archive; zipfile checks them by their checksum.

    The only compression allowed is deflate, which cannot unpack to more than 1,032 times the size
    of the archive.
    """
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise BadZipFile(f"{member.filename} is compressed in a way that numpy does not write")
    return archive.read(member)
