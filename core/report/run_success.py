"""Success rates as a table: tasks, tiers and means are its rows, what is compared its columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.report.page import percent
from core.rollout.results import STANDARD, Evaluation, Rate

CONDITIONS = {
    STANDARD: "policy",
    "blank_images": "images blanked",
    "swapped_words": "words swapped",
}


@dataclass(frozen=True)
class Column:
    """An evaluation under one condition, and the colour (from 1) of its bars."""

    name: str
    colour: int
    evaluation: Evaluation
    condition: str = STANDARD

    @property
    def mean(self) -> float:
        """Mean of the tasks' success rates."""
        return self.evaluation.mean(self.condition)


@dataclass(frozen=True)
class Fact:
    """A number that sums a run up: what it is, the number, and what it rests on."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Cell:
    """A success rate; outcome: the attempts it was counted from, None for a mean of rates."""

    rate: float
    outcome: Rate | None = None


@dataclass(frozen=True)
class Row:
    """A cell per column, None where nothing was measured."""

    name: str
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class SuccessTable:
    """What the rows are, the rows, and those that sum up others."""

    what: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    averages: Sequence[Row] = ()


def headline(evaluation: Evaluation) -> list[Fact]:
    """The few numbers that say how good the policy is."""
    facts = []
    for column in condition_columns(evaluation):
        overall = evaluation.overall(column.condition)
        low, high = overall.interval
        counted = f"{overall.successes} of {overall.episodes}; 95% interval {100 * low:.1f} to {percent(high)}"
        name = "mean success" if column.condition == STANDARD else column.name
        facts.append(Fact(name, percent(column.mean), counted))
    if evaluation.chain_length is not None:
        longest = len(evaluation.chain_rates())
        chains = f"tasks in a row of {longest}, {len(evaluation.chains)} chains"
        facts.append(Fact("average chain length", f"{evaluation.chain_length:.2f}", chains))
    return facts


def condition_columns(evaluation: Evaluation) -> list[Column]:
    """A column for each condition that has attempts at single tasks."""
    measured = [condition for condition in evaluation.conditions if evaluation.by_task(condition)]
    return [Column(condition_name(name), i, evaluation, name) for i, name in enumerate(measured, 1)]


def condition_name(condition: str) -> str:
    """What a condition is called on a page."""
    return CONDITIONS.get(condition, condition.replace("_", " "))


def success_table(columns: Sequence[Column]) -> SuccessTable | None:
    """Task by task, with the averages; None where no single task was tried."""
    columns = [column for column in columns if column.evaluation.by_task(column.condition)]
    if not columns:
        return None
    outcomes = [one.evaluation.by_task(one.condition) for one in columns]
    tiers = [one.evaluation.by_tier(one.condition) for one in columns]
    tasks = [
        Row(task, [_counted(rates.get(task)) for rates in outcomes]) for task in _union(outcomes)
    ]
    averages = [
        Row(f"mean, {tier}", [_mean(rates.get(tier)) for rates in tiers]) for tier in _union(tiers)
    ]
    averages.append(Row("mean of tasks", [_mean(column.mean) for column in columns]))
    averages.append(
        Row("all attempts", [_counted(one.evaluation.overall(one.condition)) for one in columns])
    )
    return SuccessTable("task", columns, tasks, averages)


def chain_table(columns: Sequence[Column]) -> SuccessTable | None:
    """Share of chains with at least 1, 2, 3 ... tasks done; None where no chains were tried."""
    columns = [column for column in columns if column.evaluation.chains]
    if not columns:
        return None
    rates = [dict(enumerate(column.evaluation.chain_rates(), 1)) for column in columns]
    longest = max(len(one) for one in rates)
    rows = [
        Row(f"{n} or more", [_mean(one.get(n)) for one in rates]) for n in range(1, longest + 1)
    ]
    return SuccessTable("tasks in a row", columns, rows)


def _union(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _counted(outcome: Rate | None) -> Cell | None:
    return Cell(outcome.rate, outcome) if outcome else None


def _mean(rate: float | None) -> Cell | None:
    return None if rate is None else Cell(rate)
