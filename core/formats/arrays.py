"""numpy's files, read without trust: what they claim is compared with the bytes that are there."""

from collections.abc import Collection
from io import BytesIO
from math import prod
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from core.errors import DataError, did_you_mean
from core.formats.damage import file_size
from core.system.strict import one_line

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, all or those named; they are read-only.

    Raises DataError, naming the file, for one that is not there, damaged or cut off (each array has
    a checksum), that lacks an array, or that holds Python objects, which are never unpickled.
    """
    size = file_size(file)
    try:
        with ZipFile(file) as archive:
            there = {
                i.filename.removesuffix(".npy"): i
                for i in archive.infolist()
                if i.filename.endswith(".npy")
            }
            _raise_if_lacking(file, [*there], names or ())
            return {name: _parse(_member(archive, there[name], size)) for name in (names or there)}
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged bytes make zipfile and numpy raise almost anything
        raise DataError(
            f"{file}: damaged or no .npz file ({one_line(error)}); copy it again"
        ) from None


def read_npy(file: Path) -> np.ndarray:
    """Read the array of an .npy file, read-only; raises DataError as `read_npz` does."""
    file_size(file)
    try:
        return _parse(file.read_bytes())
    except Exception as error:  # noqa: BLE001
        raise DataError(
            f"{file}: damaged or no .npy file ({one_line(error)}); copy it again"
        ) from None


def _parse(data: bytes) -> np.ndarray:
    """The array in the bytes of an .npy file, a view of them; raises ValueError where they are not
    all of it.
    """
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of numpy's format")
    shape, columns_first, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("Python objects, which might run code, are not loaded")
    claimed, there = prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if claimed != there:
        raise ValueError(f"{dtype} {shape} take {claimed:,} bytes, and {there:,} are there")
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if columns_first else "C")


def _raise_if_lacking(file: Path, there: Collection[str], names: Collection[str]) -> None:
    if lost := [name for name in names if name not in there]:
        raise DataError(f"{file}: has no array '{lost[0]}'{did_you_mean(lost[0], [*there])}")


def _member(archive: ZipFile, member: ZipInfo, size: int) -> bytes:
    """A member's bytes, verified by their checksum; no longer than deflate can make them, 1,032
    times the file.
    """
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise BadZipFile(f"{member.filename} is compressed in a way that numpy does not write")
    if member.compress_size > size:
        raise BadZipFile(
            f"{member.filename} claims {member.compress_size:,} bytes of a file of {size:,}"
        )
    return archive.read(member)
