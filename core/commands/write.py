"""`joinery write FORMAT STORE.zarr OUT`: write a store's episodes as a dataset of another format.

core/formats/exporting.py does the work; the writers of the formats are in plugins/datasets.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.command import CommandParser, before_settings, command, path
from core.errors import ConfigError

if TYPE_CHECKING:
    from core.episodes.episode import StoreInfo
    from core.registry.components import Component


def _parser() -> CommandParser:
    parser = CommandParser(
        "write",
        "Write a store's episodes in another format.",
        writes="the new file or folder OUT",
    )
    parser.add_argument(
        "format",
        metavar="FORMAT",
        type=before_settings,
        help="what to write: an exporter that `joinery plugins exporter` lists",
    )
    parser.add_argument("store", metavar="STORE", type=path, help="the store to read: STORE.zarr")
    parser.add_argument("out", metavar="OUT", type=path, help="the new file or folder")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the format")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Show what the store holds, then write its episodes."""
    arguments = _parser().parse(argv)

    from core.commands.components import find_component

    component, config = find_component("exporter", arguments.format, arguments.settings)

    from core.formats.exporting import export_episodes
    from core.report.store_tables import show_info
    from core.store.store import EpisodeStore
    from core.system.console import errors, output
    from core.system.progress import Progress

    console, store = output(), EpisodeStore(arguments.store)
    holds_features = getattr(component.build, "holds_features", False)
    console.print(f"{arguments.store}: {len(store)} episodes")
    show_info(store.info, console)
    if store.info.features and not holds_features:
        names = ", ".join(store.info.features)
        console.print(f"{arguments.format} has no place for features; left out: {names}")
    with Progress("writing", "episodes", None, errors()) as progress:
        make_sink = partial(_make_sink, component, config)
        summary = export_episodes(
            store, make_sink, arguments.out, progress.update, holds_features=holds_features
        )
    console.print(
        f"{arguments.out}: {summary.episodes} episodes, {summary.frames} frames, "
        f"{summary.bytes / 1e6:.1f} MB"
    )
    return 0


def _make_sink(component: "Component", config: Any, *, info: "StoreInfo", out: Path) -> Any:
    """Build the exporter; raises ConfigError, naming the plugin, if it breaks the contract."""
    from core.registry.building import check_build, check_members

    where = f"format '{component.name}'"
    check_build(component, ["info", "out"], where)
    sink = component.build(config, info=info, out=out)
    try:
        check_members(component, sink, ["append", "finish", "close"], where)
    except ConfigError:
        getattr(sink, "close", lambda: None)()
        raise
    return sink


if __name__ == "__main__":
    raise SystemExit(main())
