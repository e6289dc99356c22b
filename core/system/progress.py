"""Shows the progress of long work: a bar on a terminal, occasional lines of text elsewhere."""

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

# number of lines that are printed for the whole work, if the output is not a terminal
LINES = 20


class Progress:
    """Shows how much of some work is done; use as a context manager.

    activity: what is being done, "importing" for example.
    unit: what is counted, "episodes" for example.
    total: number of units; None if the first `update` will give this number.
    completed: number of units that were done before this object was created. The speed is measured
        from then on or, if `total` is None, from the first `update` on.
    transient: remove the bar from the terminal at the end.
    """

    def __init__(
        self,
        activity: str,
        unit: str,
        total: int | None,
        console: Console,
        *,
        completed: int = 0,
        transient: bool = True,
    ) -> None:
        self._activity, self._unit, self._total, self._console = activity, unit, total, console
        self._initial = completed if total is not None else None
        self._last_printed = completed
        self._start_time = time.perf_counter()
        self._bar = Bar(
            TextColumn(activity),
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
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, completed: int, total: int | None = None, text: str = "") -> None:
        """Show that `completed` units are done.

        text: further information, losses for example.
        """
        # measure the speed from this update on: an earlier process may have done these units
        if self._initial is None:
            self._initial, self._start_time = completed, time.perf_counter()
        total = self._total = total or self._total or completed
        self._bar.update(self._task, completed=completed, total=total, description=text)
        is_due = (completed - self._last_printed) * LINES >= total
        is_finished = completed == total > self._last_printed
        if self._console.is_terminal or not (is_due or is_finished):
            return
        self._last_printed = completed
        seconds = time.perf_counter() - self._start_time
        words = [f"{self._activity} {completed}/{total} {self._unit}".strip(), text]
        if done := completed - self._initial:
            words.append(f"{(total - completed) * seconds / done:.0f} s left")
        line = "  ".join(filter(None, words))
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)
