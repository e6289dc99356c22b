"""`joinery verify STORE.zarr`: check every checksum of a store, and name what is damaged."""

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import google_crc32c

from core.errors import DataError
from core.store.attributes import read_attributes
from core.store.layout import Commit, chunk_file, commit_file, commit_files, read_commit
from core.store.location import Location, stream

BLOCK = 2**24  # bytes read at once


@dataclass(frozen=True)
class Damage:
    """What is wrong with one part.

    number: of its commit. commit: None where that is what is damaged. reasons: one line for each
    file.
    """

    number: int
    commit: Commit | None
    reasons: tuple[str, ...]


def verify(path: Location, jobs: int) -> list[Damage]:
    """Check every file that a store's commits name, several parts at once.

    Raises DataError where the store itself cannot be opened.
    """
    read_attributes(path)
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda number: _check(path, number), commit_numbers(path)))
    return [damage for damage in found if damage is not None]


def commit_numbers(path: Location) -> range:
    """The numbers that a store's commits should have: those between may be missing."""
    numbers = [
        int(stem)
        for file in commit_files(path)
        if (stem := file.name.removesuffix(".json")).isdigit()
    ]
    return range(max(numbers, default=-1) + 1)


def _check(path: Location, number: int) -> Damage | None:
    try:
        commit = read_commit(commit_file(path, number))
    except DataError as error:
        return Damage(number, None, (str(error).partition(";")[0],))
    part = path / "parts" / commit.part
    files = {
        name: chunk_file(part, name, len(r.shape))
        for name, r in commit.arrays.items()
        if 0 not in r.shape
    }
    reasons = [_compare(file, commit.arrays[name].crc32c) for name, file in files.items()]
    found = tuple(reason for reason in reasons if reason is not None)
    return Damage(number, commit, found) if found else None


def _compare(file: Location, expected: int) -> str | None:
    """Why a file is not what its commit says, or None."""
    crc = 0
    try:
        for block in stream(file, BLOCK):
            crc = google_crc32c.extend(crc, block)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):  # no permission, for example, is no damage
            raise DataError(
                f"{file}: cannot be read ({error.strerror}); make it readable, then verify again"
            ) from None
        return f"{file}: {error.strerror}"
    return None if crc == expected else f"{file}: does not match its checksum"
