"""Shows an evaluation in the console: its progress while it runs, and a table of its results."""

from collections.abc import Sequence
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console

from core.evaluation.failures import failure_lines, first_step_warnings
from core.rollout.intervals import MeanScore, Rate
from core.rollout.results import STANDARD, ChainResult, Evaluation, Result
from core.rollout.scores import MEASURES
from core.system.progress import Progress
from core.system.tables import NumberTable


class Display:
    """Shows the progress of an evaluation and its success rates so far; a context manager.

    total: number of attempts and chains in the plan.
    results: results of the attempts and chains that had already ended when the evaluation was
        interrupted; empty for a fresh evaluation.
    """

    def __init__(self, total: int, results: Sequence[Result], console: Console) -> None:
        self._successes: dict[str, list[bool]] = {}  # by condition
        self._chain_lengths: list[int] = []
        self._best_scores: list[float] = []  # of the standard condition
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
        """Show the result of one more attempt or chain."""
        self._count(result)
        self._completed += 1
        conditions = sorted(self._successes, key=lambda condition: condition != STANDARD)
        rates = [
            f"{'success' if condition == STANDARD else condition} "
            f"{fmean(self._successes[condition]):.0%}"
            for condition in conditions
        ]
        if self._best_scores:
            rates.append(f"best score {fmean(self._best_scores):.3g}")
        if self._chain_lengths:
            rates.append(f"chain length {fmean(self._chain_lengths):.2f}")
        self._progress.update(self._completed, text="  ".join(rates))

    def _count(self, result: Result) -> None:
        if isinstance(result, ChainResult):
            self._chain_lengths.append(result.done)
            return
        self._successes.setdefault(result.condition, []).append(result.success)
        if result.condition == STANDARD and result.score_best is not None:
            self._best_scores.append(result.score_best)


def show(evaluation: Evaluation, console: Console) -> None:
    """Print the table of an evaluation and the lines below it."""
    if evaluation.episodes:
        console.print(_table(evaluation))
    if evaluation.mean_score("best") is not None:
        console.print(_score_table(evaluation))
    if evaluation.metrics():
        console.print(_metric_table(evaluation))
    for line in _lines_below_table(evaluation):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _table(evaluation: Evaluation) -> NumberTable:
    """Return the table of success rates: a row for each task, then rows of totals and means."""
    controls = evaluation.conditions[1:]
    headings = [control.replace("_", " ") for control in controls]
    table = NumberTable(("task", "successes", "rate", "95 % interval", *headings))
    control_rates = [evaluation.by_task(control) for control in controls]
    for task, rate in evaluation.by_task().items():
        cells = [_successes(rates[task]) if task in rates else "-" for rates in control_rates]
        table.add_row(task, *_cells(rate), *cells)
    table.add_section()
    cells = [_successes(evaluation.overall(control)) for control in controls]
    table.add_row("all", *_cells(evaluation.overall()), *cells)
    cells = [f"{evaluation.mean(control):.1%}" for control in controls]
    table.add_row("mean of tasks", "", f"{evaluation.mean():.1%}", "", *cells)
    _add_tiers(table, evaluation, controls)
    return table


def _add_tiers(table: NumberTable, evaluation: Evaluation, controls: Sequence[str]) -> None:
    """Add a row for the mean of the tiers' means, and a row for each tier of several tasks."""
    tiers = evaluation.telling_tiers()
    if tiers and (mean := evaluation.mean_of_tiers()) is not None:
        means = [evaluation.mean_of_tiers(control) for control in controls]
        cells = ["-" if value is None else f"{value:.1%}" for value in means]
        table.add_row("mean of tiers", "", f"{mean:.1%}", "", *cells)
    means_by_control = [evaluation.by_tier(control) for control in controls]
    attempts = evaluation.attempts_by_tier()
    for tier in tiers:
        cells = [f"{means[tier]:.1%}" if tier in means else "-" for means in means_by_control]
        successes, _, interval = _cells(attempts[tier])
        rate = f"{evaluation.by_tier()[tier]:.1%}"
        table.add_row(f"mean of {tier}", successes, rate, interval, *cells)


def _score_table(evaluation: Evaluation) -> NumberTable:
    """Return the table of scores: a row for each task, for all attempts, and for each control."""
    headings = [f"{name}, 95 % interval" for name in MEASURES.values()]
    table = NumberTable(("task", *headings))
    scores = [evaluation.scores(measure) for measure in MEASURES]
    for task in scores[0]:
        table.add_row(task, *[_score(by_task.get(task)) for by_task in scores])
    table.add_section()
    for condition in evaluation.conditions:
        name = "all" if condition == STANDARD else f"all, {condition}"
        means = [evaluation.mean_score(measure, condition) for measure in MEASURES]
        table.add_row(name, *map(_score, means))
    return table


def _metric_table(evaluation: Evaluation) -> NumberTable:
    """Return the table of further metrics: a row for each metric and condition."""
    headings = [f"{name}, 95 % interval" for name in ("highest", "mean", "sum")]
    table = NumberTable(("metric", *headings))
    for condition in evaluation.conditions:
        for name, means in evaluation.metrics(condition).items():
            label = name if condition == STANDARD else f"{name}, {condition}"
            table.add_row(label, *[_score(means.get(measure)) for measure in MEASURES])
    return table


def _score(score: MeanScore | None) -> str:
    if score is None:
        return "-"
    interval = f" ({score.interval[0]:.3g} to {score.interval[1]:.3g})" if score.interval else ""
    return f"{score.mean:.3g}{interval}"


def _lines_below_table(evaluation: Evaluation) -> list[str]:
    """Return lines of text about chains, about speed, and about failures of environments."""
    lines = []
    if (length := evaluation.chain_length) is not None:
        lines += _lines_of_chains(evaluation, length)
    time = evaluation.time
    lines.append(
        f"{time['inference_ms']:.1f} ms per policy step of {evaluation.protocol['lanes']} rows, "
        f"{100 * time['rows_busy']:.0f} % of the policy's rows busy, "
        f"{time['steps_per_second']:.0f} environment steps/s, {time['seconds']:.0f} s"
    )
    if (jerk := evaluation.jerk()) is not None:
        lines.append(f"jerk of the actions: {_score(jerk)}")
    if ended := evaluation.ends()["ended"]:
        attempts = "1 attempt" if ended == 1 else f"{ended} attempts"
        lines.append(f"the environment ended {attempts} without success; counted as failed")
    hints = [f"hint: {hint}" for hint in evaluation.hints]
    return [*lines, *hints, *failure_lines(evaluation), *first_step_warnings(evaluation)]


def _lines_of_chains(evaluation: Evaluation, length: float) -> list[str]:
    """Return the mean length of chains, and how many chains came how far, with intervals."""
    bounds = evaluation.chain_interval
    interval = f", 95 % interval {bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else ""
    lines = [f"chains: average length {length:.2f}{interval}"]
    for count, outcome in enumerate(evaluation.chain_outcomes(), 1):
        successes, rate, interval = _cells(outcome)
        lines.append(f"  {count} or more in a row: {successes}, {rate}, {interval}")
    return lines


def _cells(rate: Rate) -> tuple[str, str, str]:
    low, high = rate.interval
    return _successes(rate), f"{rate.rate:.1%}", f"{100 * low:.1f} to {high:.1%}"


def _successes(rate: Rate) -> str:
    return f"{rate.successes}/{rate.episodes}"
