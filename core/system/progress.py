"""Shows the progress of long work: a bar on a terminal, occasional lines of text elsewhere.

A terminal that cannot move its cursor (TERM=dumb) gets lines of text, too.
"""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

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
            *_columns(activity, unit, console.width),
            console=console,
            transient=transient,
            disable=not console.is_interactive,
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
        if self._console.is_interactive or not (is_due or is_finished):
            return
        self._last_printed = completed
        seconds = time.perf_counter() - self._start_time
        words = [f"{self._activity} {completed}/{total} {self._unit}".strip(), text]
        if done := completed - self._initial:
            words.append(f"{(total - completed) * seconds / done:.0f} s left")
        line = "  ".join(filter(None, words))
        self._console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)


class _Information(ProgressColumn):
    """The further information; it alone gives way in a narrow window."""

    def __init__(self) -> None:
        super().__init__(Column())

    def render(self, task: Task) -> "_Entries":
        """Return the information in one line."""
        return _Entries(task.description)


@dataclass(frozen=True)
class _Entries:
    """Entries with two spaces between them; those at the end that do not fit are left out."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text
        while cell_len(text) > options.max_width:
            text = text.rpartition("  ")[0]
        yield Text(text, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, cell_len(self.text))


def _columns(activity: str, unit: str, width: int) -> list[ProgressColumn]:
    """Return what stands beside each other in a window of some width."""
    whole = Column(no_wrap=True)
    times: list[ProgressColumn] = [TimeRemainingColumn(table_column=whole), TextColumn("left")]
    columns: list[ProgressColumn] = [TextColumn(activity), MofNCompleteColumn(table_column=whole)]
    if width >= 60:
        times.insert(0, TimeElapsedColumn(table_column=whole))
        columns.append(TextColumn(unit))
    if width >= 160:
        columns.append(BarColumn(table_column=whole))
    return [*columns, _Information(), *times]
