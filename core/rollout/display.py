"""What one sees of an evaluation: a bar or a line now and then while it runs, a table at its end."""

from collections.abc import Sequence, Sized
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from core.rollout.results import STANDARD, Evaluation, Rate
from core.rollout.waves import Wave

LINES = 10  # that a whole evaluation prints where there is no terminal


class Display:
    """A progress bar on a terminal, a line now and then elsewhere: attempts, success so far, time left.

    plan: what each wave attempts; done: the waves that are over already. Use as a context manager.
    """

    def __init__(self, plan: Sequence[Sized], done: Sequence[Wave], console: Console) -> None:
        self._console, self._waves, self._planned = console, list(done), len(plan)
        self._total = sum(map(len, plan))
        columns = ("evaluating", MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bar = Progress(*columns, *times, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=self._total, completed=self._completed)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, wave: Wave) -> None:
        """Show what a wave adds."""
        before = len(self._waves) * LINES // self._planned
        self._waves.append(wave)
        text = self._text()
        self._bar.update(self._task, completed=self._completed, description=text)
        if not self._console.is_terminal and len(self._waves) * LINES // self._planned > before:
            self._console.print(f"{self._completed}/{self._total} attempts  {text}", soft_wrap=True)

    @property
    def _completed(self) -> int:
        return sum(len(wave.episodes) + len(wave.chains) for wave in self._waves)

    def _text(self) -> str:
        """Success so far under each condition, and the length of chains."""
        outcomes: dict[str, list[bool]] = {}
        for episode in (episode for wave in self._waves for episode in wave.episodes):
            outcomes.setdefault(episode.condition, []).append(episode.success)
        shares = [f"{'success' if c == STANDARD else c} {sum(o) / len(o):.0%}" for c, o in outcomes.items()]
        done = [chain.done for wave in self._waves for chain in wave.chains]
        return "  ".join([*shares, *([f"chain length {sum(done) / len(done):.2f}"] if done else [])])


def _render(evaluation: Evaluation) -> Table:
    """Each task's successes, their share and its 95 % interval, and the controls."""
    controls = evaluation.conditions[1:]
    headings = [control.replace("_", "\n") for control in controls]
    table = Table("task", "successes", "rate", "95 % interval", *headings, box=None, padding=(0, 2, 0, 0))
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    rates = {condition: evaluation.by_task(condition) for condition in controls}
    for task, rate in evaluation.by_task().items():
        table.add_row(escape(task), *_cells(rate), *(_share(rates[control].get(task)) for control in controls))
    table.add_section()
    table.add_row("all", *_cells(evaluation.overall()), *(_share(evaluation.overall(control)) for control in controls))
    means = [f"{evaluation.mean(control):.1%}" for control in controls]
    table.add_row("mean of tasks", "", f"{evaluation.mean():.1%}", "", *means)
    for tier, mean in evaluation.by_tier().items():
        table.add_row(f"mean of {escape(tier)}", "", f"{mean:.1%}", "", *(_tier(evaluation, c, tier) for c in controls))
    return table


def show(evaluation: Evaluation, console: Console) -> None:
    """Print an evaluation."""
    if evaluation.episodes:
        console.print(_render(evaluation))
    for line in _closing_lines(evaluation):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _closing_lines(evaluation: Evaluation) -> list[str]:
    """What stands below the table: chains, speed, and environments that failed."""
    lines = []
    if (length := evaluation.chain_length) is not None:
        rates = "  ".join(f"{rate:.1%}" for rate in evaluation.chain_rates())
        lines.append(f"chains: average length {length:.2f}; 1, 2, ... in a row: {rates}")
    time = evaluation.time
    lines.append(
        f"{time['inference_ms']:.1f} ms per policy step of {evaluation.protocol['lanes']} lanes, "
        f"{time['steps_per_second']:.0f} environment steps/s, {time['seconds']:.0f} s"
    )
    lines += [
        f"{e.condition} {e.task}/{e.seed}: {e.failure}; counted as failed" for e in evaluation.episodes if e.failure
    ]
    lines += [f"chain {c.seed}: {c.failure}; counted as failed" for c in evaluation.chains if c.failure]
    return lines


def _cells(rate: Rate) -> tuple[str, str, str]:
    low, high = rate.interval
    return f"{rate.successes}/{rate.episodes}", f"{rate.rate:.1%}", f"{low:.1%} - {high:.1%}"


def _share(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.successes}/{rate.episodes}"


def _tier(evaluation: Evaluation, condition: str, tier: str) -> str:
    mean = evaluation.by_tier(condition).get(tier)
    return "-" if mean is None else f"{mean:.1%}"
