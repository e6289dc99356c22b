"""`joinery repair STORE.zarr`: move damaged segments aside, and keep the undamaged episodes."""

import os

from core.commands.command import CommandParser, command, local_path, positive
from core.commands.verify import print_damages


def _parser() -> CommandParser:
    parser = CommandParser(
        "repair",
        "Put aside what is damaged in a store.",
        writes="into STORE.zarr; what is damaged is moved aside there, to parts.damaged",
    )
    parser.add_argument(
        "store",
        metavar="STORE",
        type=local_path,
        help="the store: STORE.zarr; nobody may write to it meanwhile",
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
    """Check a store, repair what is damaged, and name the episodes that are lost."""
    arguments = _parser().parse(argv)

    from core.store.repair import repair
    from core.store.verify import commit_numbers, verify
    from core.system.console import output

    console, path = output(), arguments.store
    damages = verify(path, arguments.jobs)
    if not damages:
        count = len(commit_numbers(path))
        console.print(f"{path}: nothing to repair, all {count} segments are as they were written")
        return 0
    print_damages(damages, console)
    repaired = repair(path, damages)
    console.print(
        f"{path}: repaired, {repaired.saved} episodes of the damaged segments are kept, "
        f"{len(repaired.lost)} are lost"
    )
    for episode in repaired.lost:
        console.print(f"  lost: {episode}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
