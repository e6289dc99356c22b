"""`joinery verify STORE.zarr`: check every checksum of a store, and name the damaged files."""

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import google_crc32c

from core.errors import DataError
from core.store.edits import edited_info
from core.store.layout import (
    Commit,
    chunk_file,
    commit_file,
    commit_files,
    read_commit,
    segment_folder,
)
from core.store.location import Location, check_inside, stream

# number of bytes to read at once
PIECE_BYTES = 2**24


@dataclass(frozen=True)
class Damage:
    """What is wrong with one segment or with its commit.

    number: index of the commit; the name of the commit's file is this index.
    commit: the commit of the segment; None if the commit itself is damaged.
    reasons: one line for each damaged file.
    """

    number: int
    commit: Commit | None
    reasons: tuple[str, ...]


def verify(path: Location, jobs: int) -> list[Damage]:
    """Check every file that a store's commits name; `jobs` segments are checked in parallel.

    Raises DataError if the store itself cannot be opened.
    """
    edited_info(path)
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda number: _check(path, number), commit_numbers(path)))
    return [damage for damage in results if damage is not None]


def commit_numbers(path: Location) -> range:
    """Return the indices of the commits that a store should have, including missing commits."""
    stems = [file.name.removesuffix(".json") for file in commit_files(path)]
    numbers = [int(stem) for stem in stems if stem.isdigit()]
    return range(max(numbers, default=-1) + 1)


def _check(path: Location, number: int) -> Damage | None:
    """Check one commit and the files of its segment."""
    try:
        commit = read_commit(commit_file(path, number))
    except DataError as error:
        return Damage(number, None, (str(error).partition(";")[0],))
    segment = segment_folder(path, commit.segment)
    reasons = []
    for name, record in commit.arrays.items():
        if 0 not in record.shape:  # an empty array has no file
            file = chunk_file(segment, name, len(record.shape))
            check_inside(file, depth=len(name.split("/")) + len(record.shape) + 3)
            if (reason := _compare(file, record.crc32c)) is not None:
                reasons.append(reason)
    return Damage(number, commit, tuple(reasons)) if reasons else None


def _compare(file: Location, expected: int) -> str | None:
    """Return what is wrong with a file, or None if its content has the right checksum."""
    crc = 0
    try:
        for piece in stream(file, PIECE_BYTES):
            crc = google_crc32c.extend(crc, piece)
    except OSError as error:
        # only these two errors show that the file is damaged; other errors, a missing permission
        # for example, say nothing about the file's content
        if error.errno not in (errno.ENOENT, errno.EIO):
            raise DataError(
                f"{file}: cannot be read ({error.strerror}); make it readable, then verify again"
            ) from None
        return f"{file}: {error.strerror}"
    return None if crc == expected else f"{file}: does not match its checksum"
