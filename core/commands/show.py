"""`joinery show STORE.zarr`: what a store holds, what its numbers mean, and what looks wrong."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.commands.command import command
from core.errors import DataError
from core.store.location import address
from core.system.optional_imports import import_optional

if TYPE_CHECKING:
    from rich.console import Console

    from core.report.store_inspection import Inspection
    from core.store.store import EpisodeStore

UNSAID = Path()  # --html or --rerun without a name


@command
def main(argv: list[str] | None = None) -> int:
    """Show a store: print what it holds, and write a page or a recording with its pictures."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    wanted = arguments.html is not None or arguments.rerun is not None
    if arguments.episodes is not None and not wanted:
        parser.error("--episodes says what --html and --rerun show; name one of them, too")
    if arguments.rerun is not None:
        import_optional("rerun", extra="rerun")

    from rich.console import Console

    from core.report.store_inspection import inspect
    from core.report.store_tables import show_store
    from core.store.store import EpisodeStore

    console, store = Console(soft_wrap=True), EpisodeStore(arguments.store)
    episodes = _choose(store, arguments.episodes) if wanted else []
    found = inspect(store) if len(store) else None
    show_store(store, found, console)
    if found and arguments.html is not None:
        _write_page(store, found, episodes, _named(arguments.html, store, ".html"), console)
    if found and arguments.rerun is not None:
        _write_recording(store, episodes, _named(arguments.rerun, store, ".rrd"), console)
    return 0


def _choose(store: "EpisodeStore", names: Sequence[str] | None) -> list[int]:
    from core.report.store_films import choose_episodes

    if not len(store):
        raise DataError(f"{store.path}: no episodes to show; import some")
    return choose_episodes(store, names)


def _named(path: Path, store: "EpisodeStore", suffix: str) -> Path:
    """Where to write: in the working directory, by the name of the store, unless said."""
    if path != UNSAID:
        return path
    return Path(store.name + suffix)


def _write_page(
    store: "EpisodeStore",
    found: "Inspection",
    episodes: Sequence[int],
    path: Path,
    console: "Console",
) -> None:
    from core.report.store_report import write_store_page

    write_store_page(store, found, episodes, path)
    _say(path, episodes, console)


def _write_recording(
    store: "EpisodeStore", episodes: Sequence[int], path: Path, console: "Console"
) -> None:
    from core.report.store_recording import write_recording

    write_recording(store, episodes, path)
    _say(path, episodes, console)


def _say(path: Path, episodes: Sequence[int], console: "Console") -> None:
    size = path.stat().st_size / 1e6
    console.print(f"{path}: {len(episodes)} episodes, {size:.1f} MB", highlight=False, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery show", description="Show what a store holds, and what looks wrong."
    )
    parser.add_argument("store", type=address, help="the store: name.zarr, or its URL")
    parser.add_argument(
        "--html",
        type=Path,
        nargs="?",
        const=UNSAID,
        metavar="PAGE.html",
        help="write a page with pictures, histograms and episodes that play; unless said NAME.html, for NAME.zarr",
    )
    parser.add_argument(
        "--rerun",
        type=Path,
        nargs="?",
        const=UNSAID,
        metavar="OUT.rrd",
        help="write recordings for Rerun's viewer, one of each episode; unless said NAME.rrd",
    )
    parser.add_argument(
        "--episodes",
        nargs="+",
        metavar="ID",
        help="the episodes that play; unless said one of each task, of few tasks in turns",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
