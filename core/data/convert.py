"""python -m core.data.convert FORMAT SOURCE OUT.zarr: import episodes of another format into a store."""

import argparse
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli import command, positive
from core.data.show import show_info, statistics_table
from core.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from core.data.contracts import EpisodeSource
    from core.data.imports import Summary


@command
def main(argv: list[str] | None = None) -> int:
    """Import episodes: show how the source is understood, then read it."""
    arguments = _parser().parse_intermixed_args(argv)
    source = _build_source(arguments.format, arguments.source, arguments.mapping, arguments.settings)

    from rich.console import Console

    from core.data.imports import import_episodes

    console = Console(soft_wrap=True)
    _show_plan(source, arguments.source, console)
    with _Progress() as progress:
        summary = import_episodes(
            source, arguments.out, progress.update, jobs=arguments.jobs, skip_bad=arguments.skip_bad
        )
    _show_summary(summary, arguments.out, console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joinery import", description="Import episodes into a store.")
    parser.add_argument("format", help="how the source is laid out: a dataset that `joinery plugins dataset` lists")
    parser.add_argument("source", type=Path, help="file or folder to read")
    parser.add_argument("out", type=Path, help="the store, new or existing: name.zarr")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the format")
    parser.add_argument("--mapping", type=Path, metavar="FILE.toml", help="settings of the format, in a file")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="processes that read and encode")
    parser.add_argument("--skip-bad", action="store_true", help="go on past damaged episodes, and list them at the end")
    return parser


def _build_source(name: str, path: Path, mapping: Path | None, settings: list[str]) -> "EpisodeSource":
    """The dataset that reads the source; raises RecipeError for an unknown format or setting."""
    from core.checking import fill, parse_settings
    from core.plugins import load_plugins

    catalogue = load_plugins()
    component = catalogue["dataset"].get(name)
    if component is None:
        raise RecipeError(f"format: {catalogue.explain_unknown('dataset', name)}")
    mistakes: list[str] = []
    values = {**_read_mapping(mapping), **parse_settings(settings, mistakes)}
    config = fill(component.config, values, name, mistakes)
    if mistakes:
        raise RecipeError(mistakes)
    source: EpisodeSource = component.build(config, source=path)
    return source


def _read_mapping(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"--mapping: cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise RecipeError(f"--mapping: '{path}' is no TOML: {error}") from None


# ---------------------------------------------------------------------------------------------- what is shown


def _show_plan(source: "EpisodeSource", path: Path, console: "Console") -> None:
    """How the source is understood, before any work is done."""
    console.print(f"{path}: {len(source.ids())} episodes", markup=False)
    show_info(source.info, console)


def _show_summary(summary: "Summary", out: Path, console: "Console") -> None:
    """What the store holds now, and how its numbers are spread."""
    from core.data.store import EpisodeStore

    console.print(
        f"{out}: {summary.added} episodes imported; {summary.episodes} episodes, {summary.frames} frames, "
        f"{summary.bytes / 1e6:.1f} MB"
    )
    for camera, codec in summary.codecs.items():
        console.print(f"  camera {camera}: {codec}", highlight=False, markup=False)
    console.print(statistics_table(EpisodeStore(out)))
    if summary.skipped:
        console.print(f"skipped {len(summary.skipped)}:")
        for episode, reason in summary.skipped.items():
            console.print(f"  {episode}: {reason}", highlight=False, markup=False)


class _Progress:
    """A bar on a terminal, a line now and then elsewhere; both on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes, left"))
        self._console = Console(stderr=True)
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._task = self._bar.add_task("importing", total=None)
        self._told = 0.0

    def __enter__(self) -> "_Progress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` episodes are in the store."""
        self._bar.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and done / total >= self._told + 0.05:
            self._told = done / total
            print(f"importing {done}/{total} episodes", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
