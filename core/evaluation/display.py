"""What one sees of an evaluation: a bar or a line now and then while it runs, a table at its end."""

from collections.abc import Sequence
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.rollout.results import STANDARD, ChainResult, Evaluation, Rate, Result
from core.system.progress import Progress


class Display:
    """Shows how far an evaluation is, and its successes so far.

    total: attempts and chains; results: of those that are over already. Use as a context manager.
    """

    def __init__(self, total: int, results: Sequence[Result], console: Console) -> None:
        self._outcomes: dict[str, list[bool]] = {}
        self._chain_lengths: list[int] = []
        for result in results:
            self._count(result)
        self._completed = len(results)
        self._progress = Progress(
            "evaluating", "attempts", total, console, completed=len(results), transient=False
        )

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, at)

    def update(self, result: Result) -> None:
        """Show what a result adds."""
        self._count(result)
        self._completed += 1
        self._progress.update(self._completed, text=self._text())

    def _count(self, result: Result) -> None:
        if isinstance(result, ChainResult):
            self._chain_lengths.append(result.done)
        else:
            self._outcomes.setdefault(result.condition, []).append(result.success)

    def _text(self) -> str:
        """Success so far under each condition, the standard one first, and the length of chains."""
        outcomes = sorted(self._outcomes.items(), key=lambda pair: pair[0] != STANDARD)
        words = [f"{'success' if c == STANDARD else c} {fmean(o):.0%}" for c, o in outcomes]
        if self._chain_lengths:
            words.append(f"chain length {fmean(self._chain_lengths):.2f}")
        return "  ".join(words)


def _render(evaluation: Evaluation) -> Table:
    """Each task's successes, their share and its 95 % interval, and the controls."""
    controls = evaluation.conditions[1:]
    headings = [control.replace("_", "\n") for control in controls]
    table = Table(
        "task", "successes", "rate", "95 % interval", *headings, box=None, padding=(0, 2, 0, 0)
    )
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    rates = {condition: evaluation.by_task(condition) for condition in controls}
    for task, rate in evaluation.by_task().items():
        table.add_row(
            escape(task), *_cells(rate), *(_share(rates[control].get(task)) for control in controls)
        )
    table.add_section()
    table.add_row(
        "all",
        *_cells(evaluation.overall()),
        *(_share(evaluation.overall(control)) for control in controls),
    )
    means = [f"{evaluation.mean(control):.1%}" for control in controls]
    table.add_row("mean of tasks", "", f"{evaluation.mean():.1%}", "", *means)
    for tier, mean in evaluation.by_tier().items():
        table.add_row(
            f"mean of {escape(tier)}",
            "",
            f"{mean:.1%}",
            "",
            *(_tier(evaluation, c, tier) for c in controls),
        )
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
        f"{100 * time['rows_busy']:.0f} % of the policy's rows busy, "
        f"{time['steps_per_second']:.0f} environment steps/s, {time['seconds']:.0f} s"
    )
    lines += [
        f"{e.condition} {e.task}/{e.seed}: {e.failure}; counted as failed"
        for e in evaluation.episodes
        if e.failure
    ]
    lines += [
        f"chain {c.seed}: {c.failure}; counted as failed" for c in evaluation.chains if c.failure
    ]
    return lines


def _cells(rate: Rate) -> tuple[str, str, str]:
    low, high = rate.interval
    return f"{rate.successes}/{rate.episodes}", f"{rate.rate:.1%}", f"{low:.1%} - {high:.1%}"


def _share(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.successes}/{rate.episodes}"


def _tier(evaluation: Evaluation, condition: str, tier: str) -> str:
    mean = evaluation.by_tier(condition).get(tier)
    return "-" if mean is None else f"{mean:.1%}"
