"""Read numpy's files, and check that each holds as many bytes as its header claims."""

from collections.abc import Collection
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


def read_npz(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file, or the arrays in `names`; the result is read-only.

    Raises DataError, naming the file, if the file is missing, damaged or cut off, or if it lacks an
    array in `names`. Also raises DataError for an array of Python objects, because reading such an
    array would unpickle it, and unpickling can run any code.
    """
    size = file_size(file)
    try:
        with ZipFile(file) as archive:
            members = {
                member.filename.removesuffix(".npy"): member
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
            for name in names or ():
                if name not in members:
                    suggestion = did_you_mean(name, [*members])
                    raise DataError(f"{file}: has no array '{name}'{suggestion}")
            return {
                name: _parse_npy(_read_member(archive, members[name], size))
                for name in names or members
            }
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
    except Exception as error:  # noqa: BLE001 - damage makes numpy raise almost anything
        raise DataError(
            f"{file}: damaged or no .npy file ({one_line(error)}); copy it again"
        ) from None


def _parse_npy(data: bytes) -> np.ndarray:
    """Return the array in the bytes of an .npy file, as a view of these bytes.

    Raises ValueError if the bytes are more or fewer than the header says.
    """
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in HEADER_READERS:
        raise ValueError(f"version {version} of numpy's format")
    shape, fortran_order, dtype = HEADER_READERS[version](stream)
    if dtype.hasobject:
        raise ValueError("Python objects, which might run code, are not loaded")
    claimed, available = prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if claimed != available:
        raise ValueError(f"{dtype} {shape} take {claimed:,} bytes, and {available:,} are there")
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if fortran_order else "C")


def _read_member(archive: ZipFile, member: ZipInfo, size: int) -> bytes:
    """Return the bytes of one file in a zip archive; zipfile checks them by their checksum.

    The only compression allowed is deflate, which cannot unpack to more than 1,032 times `size`,
    the size of the archive.
    """
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise BadZipFile(f"{member.filename} is compressed in a way that numpy does not write")
    if member.compress_size > size:
        raise BadZipFile(
            f"{member.filename} claims {member.compress_size:,} bytes of a file of {size:,}"
        )
    return archive.read(member)
