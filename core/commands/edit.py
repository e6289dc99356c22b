"""`joinery edit STORE.zarr`: correct what a store says about its numbers, words and tasks.

core/store/edits.py does the work. The recorded episodes stay as they are.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from core.commands.command import CommandParser, command, local_path

if TYPE_CHECKING:
    from core.store.edits import DatedEdit


def _parser() -> CommandParser:
    parser = CommandParser(
        "edit",
        "Correct a store's conventions, names, instructions and tasks; without "
        "settings, print the corrections so far.",
        writes="the corrections into STORE.zarr/edits; without settings, nothing",
    )
    parser.add_argument("store", metavar="STORE", type=local_path, help="the store: STORE.zarr")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="what to correct")
    parser.add_argument(
        "--mapping", type=Path, metavar="FILE.toml", help="what to correct, in a file"
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Add a correction and show what the store says now, or show the corrections so far."""
    arguments = _parser().parse(argv)
    from core.errors import ConfigError
    from core.recipe.checking import fill, parse_settings, read_toml
    from core.report.store_tables import show_info
    from core.store.edits import Edit, add_edit
    from core.store.layout import Task
    from core.store.store import EpisodeStore
    from core.system.console import output

    console, store = output(), EpisodeStore(arguments.store)
    mistakes: list[str] = []
    values = read_toml(arguments.mapping, "the mapping") if arguments.mapping else {}
    values = parse_settings(arguments.settings, mistakes, values)
    edit = fill(Edit, values, "edit", mistakes)
    if mistakes or edit is None:
        raise ConfigError(mistakes)
    if values:
        words = [Task(*store.tasks[number]) for number in store.task.tolist()]
        ids = [store.episode_id(episode) for episode in range(len(store))]
        add_edit(arguments.store, edit, words, ids)
        store = EpisodeStore(arguments.store)
    console.print(f"{arguments.store}: corrections so far: {len(store.edits)}")
    for dated in store.edits:
        console.print(_describe(dated))
    show_info(store.info, console)
    return 0


def _describe(dated: "DatedEdit") -> str:
    """Return an edit in one line: its time, and what it says."""
    from pydantic import TypeAdapter

    from core.store.edits import Edit

    plain = TypeAdapter(Edit).dump_python(
        dated.edit, mode="json", exclude_defaults=True, exclude_none=True
    )
    return f"  {dated.time}  " + "; ".join(f"{key} = {value}" for key, value in plain.items())


if __name__ == "__main__":
    raise SystemExit(main())
