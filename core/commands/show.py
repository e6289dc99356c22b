"""`joinery show STORE.zarr`: what a store holds, what its numbers mean, and what looks wrong."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.commands.command import CommandParser, command
from core.errors import DataError
from core.store.location import address
from core.system.optional_imports import import_optional

if TYPE_CHECKING:
    from rich.console import Console

# The value of --html or --rerun if no file name follows; the file is then named after the store.
DEFAULT_NAME = Path()


def _parser() -> CommandParser:
    parser = CommandParser(
        "show",
        "Show what a store holds, and what looks wrong.",
        writes="the files of --html and --rerun; without them, nothing",
    )
    parser.add_argument(
        "store", metavar="STORE", type=address, help="the store: STORE.zarr, or its URL"
    )
    parser.add_argument(
        "--html",
        type=_written,
        nargs="?",
        const=DEFAULT_NAME,
        metavar="PAGE.html",
        help="write a page with images, histograms and episodes that play; "
        "without PAGE.html it is NAME.html, for NAME.zarr",
    )
    parser.add_argument(
        "--rerun",
        type=_written,
        nargs="?",
        const=DEFAULT_NAME,
        metavar="OUT.rrd",
        help="write recordings for Rerun's viewer, one of each episode; "
        "without OUT.rrd it is NAME.rrd",
    )
    parser.add_argument(
        "--episodes",
        nargs="+",
        metavar="ID",
        help="the episodes that play; default: one of each task, or several if there are few tasks",
    )
    return parser


def _written(text: str) -> Path:
    if text.rstrip("/").endswith(".zarr"):
        raise ArgumentTypeError(f"'{text}' is a store; name it first: joinery show STORE --html")
    return Path(text)


@command
def main(argv: list[str] | None = None) -> int:
    """Print what a store holds, and write a page or recordings of its episodes if asked to."""
    parser = _parser()
    arguments = parser.parse(argv)
    writes_files = arguments.html is not None or arguments.rerun is not None
    if arguments.episodes is not None and not writes_files:
        parser.error("--episodes says what --html and --rerun show; name one of them, too")
    if arguments.rerun is not None:
        import_optional("rerun", extra="rerun")  # if missing, fail before the slow inspection

    from core.report.store_films import choose_episodes
    from core.report.store_inspection import inspect
    from core.report.store_tables import show_store
    from core.store.store import EpisodeStore
    from core.system.console import output

    console, store = output(), EpisodeStore(arguments.store)
    episodes: list[int] = []
    if writes_files:
        if not len(store):
            raise DataError(f"{store.path}: no episodes to show; import some")
        episodes = choose_episodes(store, arguments.episodes)
    inspection = inspect(store) if len(store) else None
    show_store(store, inspection, console)
    if inspection and arguments.html is not None:
        from core.report.store_report import write_store_page

        page = Path(f"{store.name}.html") if arguments.html == DEFAULT_NAME else arguments.html
        write_store_page(store, inspection, episodes, page)
        _print_size(page, episodes, console)
    if inspection and arguments.rerun is not None:
        from core.report.store_recording import write_recording

        file = Path(f"{store.name}.rrd") if arguments.rerun == DEFAULT_NAME else arguments.rerun
        write_recording(store, episodes, file)
        _print_size(file, episodes, console)
    return 0


def _print_size(path: Path, episodes: Sequence[int], console: "Console") -> None:
    size = path.stat().st_size / 1e6
    console.print(f"{path}: {len(episodes)} episodes, {size:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(main())
