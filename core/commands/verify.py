"""`joinery verify STORE.zarr`: check every checksum of a store, and name what is damaged."""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.commands.command import command, positive
from core.store.location import address, locate

if TYPE_CHECKING:
    from core.store.verify import Damage


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery verify", description="Check every checksum of a store."
    )
    parser.add_argument("store", type=address, help="the store: name.zarr, or its URL")
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        help="segments that are checked at once",
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Check a store; the exit code is 1 if anything is damaged."""
    arguments = _parser().parse_args(argv)

    from core.store.verify import commit_numbers, verify

    path = locate(arguments.store)
    damages = verify(path, arguments.jobs)
    print_damages(damages)
    if damages:
        advice = "`joinery repair` keeps the episodes that are whole"
        print(f"{path}: {len(damages)} segments are damaged; {advice}")
        return 1
    print(f"{path}: all {len(commit_numbers(path))} segments are as they were written")
    return 0


def print_damages(damages: "Sequence[Damage]") -> None:
    """Print a line for each reason why a segment of a store is damaged."""
    for damage in damages:
        if damage.commit:
            contents = f"{len(damage.commit.episodes)} episodes"
        else:
            contents = "episodes that only it knows"
        for reason in damage.reasons:
            print(f"segment {damage.number}, {contents}: {reason}")


if __name__ == "__main__":
    raise SystemExit(main())
