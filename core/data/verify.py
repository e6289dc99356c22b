"""`joinery verify STORE.zarr`: check every checksum of a store, and name what is damaged."""

import argparse
import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import google_crc32c

from core.cli import command, positive
from core.data.attributes import read_attributes
from core.data.layout import Commit, chunk_file, commit_file, commit_files, read_commit
from core.data.location import Location, address, locate, stream
from core.errors import DataError

BLOCK = 2**24  # bytes read at once


@dataclass(frozen=True)
class Damage:
    """What is wrong with one part.

    number: of its commit. commit: None where that is what is damaged. reasons: one line for each file.
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
    numbers = [int(stem) for file in commit_files(path) if (stem := file.name.removesuffix(".json")).isdigit()]
    return range(max(numbers, default=-1) + 1)


def _check(path: Location, number: int) -> Damage | None:
    try:
        commit = read_commit(commit_file(path, number))
    except DataError as error:
        return Damage(number, None, (str(error).partition(";")[0],))
    part = path / "parts" / commit.part
    files = {name: chunk_file(part, name, len(r.shape)) for name, r in commit.arrays.items() if 0 not in r.shape}
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
            raise DataError(f"{file}: cannot be read ({error.strerror}); make it readable, then verify again") from None
        return f"{file}: {error.strerror}"
    return None if crc == expected else f"{file}: does not match its checksum"


def report(damages: Sequence[Damage]) -> None:
    """Print what is damaged."""
    for damage in damages:
        held = f"{len(damage.commit.episodes)} episodes" if damage.commit else "episodes that only it knows"
        print("\n".join(f"part {damage.number}, {held}: {reason}" for reason in damage.reasons))


@command
def main(argv: list[str] | None = None) -> int:
    """Check a store; the exit code is 1 if anything is damaged."""
    arguments = _parser().parse_args(argv)
    path = locate(arguments.store)
    damages = verify(path, arguments.jobs)
    report(damages)
    if damages:
        advice = "`joinery repair` keeps the episodes that are whole"
        print(f"{path}: {len(damages)} parts are damaged; {advice}")
        return 1
    print(f"{path}: all {len(commit_numbers(path))} parts are as they were written")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joinery verify", description="Check every checksum of a store.")
    parser.add_argument("store", type=address, help="the store: name.zarr, or its URL")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="parts that are checked at once")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
