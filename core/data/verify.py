"""`joinery verify STORE.zarr`: check every checksum of a store; --repair puts aside what is damaged."""

import argparse
import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from core.cli import command, positive
from core.data.attributes import read_attributes
from core.data.layout import Commit, chunk_file, commit_file, commit_files, read_commit
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


def verify(path: Path, jobs: int) -> list[Damage]:
    """Check every file that a store's commits name, several parts at once.

    Raises DataError where the store itself cannot be opened.
    """
    read_attributes(path)
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda number: _check(path, number), commit_numbers(path)))
    return [damage for damage in found if damage is not None]


def commit_numbers(path: Path) -> range:
    """The numbers that a store's commits should have: those between may be missing."""
    numbers = [int(file.stem) for file in commit_files(path) if file.stem.isdigit()]
    return range(max(numbers, default=-1) + 1)


def _check(path: Path, number: int) -> Damage | None:
    try:
        commit = read_commit(commit_file(path, number))
    except DataError as error:
        return Damage(number, None, (str(error).partition(";")[0],))
    part = path / "parts" / commit.part
    files = {name: chunk_file(part, name, len(r.shape)) for name, r in commit.arrays.items() if 0 not in r.shape}
    reasons = [_compare(file, commit.arrays[name].crc32c) for name, file in files.items()]
    found = tuple(reason for reason in reasons if reason is not None)
    return Damage(number, commit, found) if found else None


def _compare(file: Path, expected: int) -> str | None:
    """Why a file is not what its commit says, or None."""
    crc = 0
    try:
        with file.open("rb") as stream:
            while block := stream.read(BLOCK):
                crc = google_crc32c.extend(crc, block)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):  # no permission, for example, is no damage
            raise DataError(f"{file}: cannot be read ({error.strerror}); make it readable, then verify again") from None
        return f"{file}: {error.strerror}"
    return None if crc == expected else f"{file}: does not match its checksum"


@command
def main(argv: list[str] | None = None) -> int:
    """Check a store; the exit code is 1 if anything is damaged, and stays so."""
    arguments = _parser().parse_args(argv)
    damages = verify(arguments.store, arguments.jobs)
    for damage in damages:
        held = f"{len(damage.commit.episodes)} episodes" if damage.commit else "episodes that only it knows"
        print("\n".join(f"part {damage.number}, {held}: {reason}" for reason in damage.reasons))
    if not damages:
        print(f"{arguments.store}: all {len(commit_numbers(arguments.store))} parts are as they were written")
        return 0
    if not arguments.repair:
        print(f"{arguments.store}: {len(damages)} parts are damaged; --repair keeps the episodes that are whole")
        return 1
    return _repair(arguments.store, damages)


def _repair(path: Path, damages: Sequence[Damage]) -> int:
    from core.data.repair import repair

    repaired = repair(path, damages)
    print(f"{path}: repaired, {repaired.saved} episodes of the damaged parts are kept, {len(repaired.lost)} are lost")
    print("".join(f"  lost: {episode}\n" for episode in repaired.lost), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joinery verify", description="Check every checksum of a store.")
    parser.add_argument("store", type=Path, help="the store: name.zarr")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="parts that are checked at once")
    parser.add_argument("--repair", action="store_true", help="put aside what is damaged; nobody may write meanwhile")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
