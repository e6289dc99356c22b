"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINES = 20  # that a whole piece of work prints where there is no terminal


class Progress:
    """Shows how much of some work is done; use as a context manager.

    doing: what is being done, "importing" for example, and unit: to what, "episodes".
    total: how many of them; None: the first `update` says it. completed: how many were done before.
    transient: remove the bar from the terminal at the end.
    """

    def __init__(
        self,
        doing: str,
        unit: str,
        total: int | None,
        console: Console,
        *,
        completed: int = 0,
        transient: bool = True,
    ) -> None:
        self._doing, self._unit, self._total, self._console = doing, unit, total, console
        self._first = self._printed = completed
        self._started = time.perf_counter()
        self._bar = Bar(
            TextColumn(doing),
            MofNCompleteColumn(),
            TextColumn(unit),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=transient,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=completed)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, completed: int, total: int | None = None, text: str = "") -> None:
        """Show that `completed` are done; text: what else there is to say, the losses for example."""
        total = self._total = total or self._total or completed
        self._bar.update(self._task, completed=completed, total=total, description=text)
        if self._console.is_terminal or not (
            (completed - self._printed) * LINES >= total or completed == total > self._printed
        ):
            return
        self._printed = completed
        seconds = time.perf_counter() - self._started
        left = (total - completed) * seconds / max(1, completed - self._first)
        words = (f"{self._doing} {completed}/{total} {self._unit}".strip(), text)
        line = "  ".join([*filter(None, words), f"{left:.0f} s left"])
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)
