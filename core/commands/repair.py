"""`joinery repair STORE.zarr`: damaged segments go, and whole episodes in them move to a new one."""

import argparse
import os

from core.commands.command import command, local_path, positive
from core.commands.verify import print_damages


@command
def main(argv: list[str] | None = None) -> int:
    """Check a store and repair what is damaged."""
    arguments = _parser().parse_args(argv)
    from core.store.repair import repair
    from core.store.verify import commit_numbers, verify

    path = arguments.store
    damages = verify(path, arguments.jobs)
    if not damages:
        print(
            f"{path}: nothing to repair, all {len(commit_numbers(path))} segments are as they were written"
        )
        return 0
    print_damages(damages)
    repaired = repair(path, damages)
    print(
        f"{path}: repaired, {repaired.saved} episodes of the damaged segments are kept, {len(repaired.lost)} are lost"
    )
    print("".join(f"  lost: {episode}\n" for episode in repaired.lost), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery repair", description="Put aside what is damaged in a store."
    )
    parser.add_argument(
        "store", type=local_path, help="the store: name.zarr; nobody may write to it meanwhile"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        help="segments that are checked at once",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
