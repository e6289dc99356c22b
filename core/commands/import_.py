"""`joinery import FORMAT SOURCE OUT.zarr`: import episodes of another format into a store.

`import` is a keyword of Python, so the file is named import_.py. core/formats/importing.py does
the work; the readers of the formats are in plugins/datasets.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from core.commands.command import (
    CommandParser,
    before_settings,
    command,
    local_path,
    path,
    positive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from core.formats.contracts import EpisodeSource
    from core.formats.importing import ImportSummary


def _parser() -> CommandParser:
    parser = CommandParser(
        "import",
        "Import episodes into a store.",
        writes="the episodes into OUT.zarr",
    )
    parser.add_argument(
        "format",
        metavar="FORMAT",
        type=before_settings,
        help="how the source is laid out: a dataset that `joinery plugins dataset` lists",
    )
    parser.add_argument("source", metavar="SOURCE", type=path, help="file or folder to read")
    parser.add_argument(
        "out", metavar="OUT", type=local_path, help="the store, new or existing: OUT.zarr"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the format")
    parser.add_argument(
        "--mapping", type=Path, metavar="FILE.toml", help="settings of the format, in a file"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        help="processes that read and encode; default: one for each core, if there are 2 GB for "
        "each",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="go on past damaged episodes, and list them at the end",
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Show how the source is understood, then import its episodes."""
    arguments = _parser().parse(argv)
    from core.commands.components import find_component
    from core.recipe.checking import read_toml
    from core.registry.building import check_build, check_members

    mapping = read_toml(arguments.mapping, "the mapping") if arguments.mapping else {}
    component, config = find_component("dataset", arguments.format, arguments.settings, mapping)
    where = f"format '{component.name}'"
    check_build(component, ["source"], where)
    source: EpisodeSource = component.build(config, source=arguments.source)
    check_members(component, source, ["info", "ids", "read"], where)

    from core.formats.importing import import_episodes, usual_jobs
    from core.report.store_tables import show_info
    from core.system.console import errors, output
    from core.system.progress import Progress

    console = output()
    console.print(f"{arguments.source}: {len(source.ids())} episodes")
    show_info(source.info, console)
    for note in getattr(source, "notes", ()):
        console.print(f"  {note}")
    with Progress("importing", "episodes", None, errors()) as progress:
        summary = import_episodes(
            source,
            arguments.out,
            progress.update,
            name=arguments.source.resolve().name,
            jobs=arguments.jobs or usual_jobs(),
            skip_bad=arguments.skip_bad,
        )
    _show_summary(summary, arguments.out, console)
    if hasattr(source, "doubts"):
        _show_doubts(source.doubts, arguments.out, console)
    return 0


def _show_summary(summary: "ImportSummary", out: Path, console: "Console") -> None:
    """Print what the store holds now, what looks wrong about its numbers, and what was skipped."""
    from core.episodes.plausibility import implausible_numbers
    from core.report.store_tables import statistics_table
    from core.store.store import EpisodeStore

    console.print(
        f"{out}: {summary.added} episodes imported; {summary.episodes} episodes, "
        f"{summary.frames} frames, {summary.bytes / 1e6:.1f} MB"
    )
    if summary.prefix:
        console.print(
            f"  the store held other episodes of the same names, so these are called "
            f"{summary.prefix}..."
        )
    for camera, codec in summary.codecs.items():
        console.print(f"  camera {camera}: {codec}")
    store = EpisodeStore(out)
    console.print(statistics_table(store))
    for line in implausible_numbers(store.info, store.statistics):
        console.print(f"suspicious: {line}")
    if summary.skipped:
        console.print(f"skipped {len(summary.skipped)}:")
        for episode, reason in summary.skipped.items():
            console.print(f"  {episode}: {reason}")


def _show_doubts(
    doubts: "Callable[[set[str]], Iterable[str]]", out: Path, console: "Console"
) -> None:
    """Print which settings no episode fits, and how to correct that without a new import."""
    from core.store.edits import read_edits
    from core.store.store import EpisodeStore

    instructions = {instruction for _, instruction in EpisodeStore(out).tasks}
    for dated in read_edits(out):  # the dataset still has the words that an edit replaced
        instructions |= dated.edit.instructions.keys()
    lines = list(doubts(instructions))
    for line in lines:
        console.print(f"suspicious: {line}")
    if lines:
        console.print(f"  joinery edit {out} tasks=... groups instructions to tasks, too")


if __name__ == "__main__":
    raise SystemExit(main())
