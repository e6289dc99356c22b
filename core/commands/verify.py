"""`joinery verify STORE.zarr`: check every checksum of a store, and name what is damaged."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.commands.command import CommandParser, command, positive
from core.store.location import address, locate

if TYPE_CHECKING:
    from rich.console import Console

    from core.store.verify import Damage


def _parser() -> CommandParser:
    parser = CommandParser(
        "verify",
        "Check every checksum of a store.",
        writes="nothing",
    )
    parser.add_argument(
        "store", metavar="STORE", type=address, help="the store: STORE.zarr, or its URL"
    )
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
    arguments = _parser().parse(argv)

    from core.store.verify import commit_numbers, verify
    from core.system.console import output

    console, path = output(), locate(arguments.store)
    damages = verify(path, arguments.jobs)
    print_damages(damages, console)
    if damages:
        advice = "`joinery repair` keeps the episodes that are whole"
        console.print(f"{path}: {len(damages)} segments are damaged; {advice}")
        return 1
    console.print(f"{path}: all {len(commit_numbers(path))} segments are as they were written")
    return 0


def print_damages(damages: "Sequence[Damage]", console: "Console") -> None:
    """Print a line for each reason why a segment of a store is damaged."""
    for damage in damages:
        if damage.commit:
            contents = f"{len(damage.commit.episodes)} episodes"
        else:
            contents = "episodes that only it knows"
        for reason in damage.reasons:
            console.print(f"segment {damage.number}, {contents}: {reason}")


if __name__ == "__main__":
    raise SystemExit(main())
