"""What the commands that read and write other formats share: which format, its settings, and how far the work is."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from core.errors import RecipeError
from core.hookspecs import Kind


def choose_format(kind: Kind, name: str, settings: Sequence[str], mapping: Mapping[str, Any]) -> partial[Any]:
    """What builds the component of that name with these settings; raises RecipeError for unknown ones.

    settings: `key=value` words; they go before `mapping`.
    """
    from core.checking import fill, parse_settings
    from core.plugins import load_plugins

    catalogue = load_plugins()
    component = catalogue[kind].get(name)
    if component is None:
        raise RecipeError(f"format: {catalogue.explain_unknown(kind, name)}")
    mistakes: list[str] = []
    config = fill(component.config, {**mapping, **parse_settings(settings, mistakes)}, name, mistakes)
    if mistakes:
        raise RecipeError(mistakes)
    return partial(component.build, config)


class Progress:
    """A bar on a terminal, a line now and then elsewhere; both on stderr.

    doing: what is being done to episodes, "importing" for example.
    """

    def __init__(self, doing: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("episodes, left"))
        self._console = Console(stderr=True)
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._task = self._bar.add_task(doing, total=None)
        self._doing = doing
        self._told = 0.0

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` episodes are done."""
        self._bar.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and done / total >= self._told + 0.05:
            self._told = done / total
            print(f"{self._doing} {done}/{total} episodes", file=sys.stderr, flush=True)
