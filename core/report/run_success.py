"""Makes tables of success rates: a row per task, chain length or mean; a column per evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.report.page import Fact
from core.report.wording import interval, percent
from core.rollout.intervals import Rate
from core.rollout.results import STANDARD, Evaluation

CONDITION_NAMES = {
    STANDARD: "policy",
    "blank_images": "images blanked",
    "swapped_words": "words swapped",
    "blank_history": "history blanked",
}


@dataclass(frozen=True)
class Column:
    """An evaluation under one condition, with the index (from 1) of the colour of its bars."""

    name: str
    colour: int
    evaluation: Evaluation
    condition: str = STANDARD

    @property
    def mean(self) -> float:
        """Mean of the success rates of all tasks."""
        return self.evaluation.mean(self.condition)


@dataclass(frozen=True)
class Cell:
    """A success rate.

    outcome: the counts of attempts and successes, if the page shows them beside the rate.
    """

    rate: float
    outcome: Rate | None = None


@dataclass(frozen=True)
class Row:
    """A row: its name, and a cell for each column; a cell is None if nothing was measured."""

    name: str
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class SuccessTable:
    """A table of success rates, with rows of averages below the other rows.

    heading: what the rows are, tasks for example.
    """

    heading: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    averages: Sequence[Row] = ()


def headline(evaluation: Evaluation) -> list[Fact]:
    """Return the main results of an evaluation, for the head of a page."""
    facts = []
    for column in condition_columns(evaluation):
        overall = evaluation.overall(column.condition)
        attempts = f"{overall.successes} of {overall.episodes}"
        name = "mean success" if column.condition == STANDARD else column.name
        facts.append(Fact(name, percent(column.mean), attempts, interval(overall.interval)))
    if evaluation.chain_length is not None:
        longest, bounds = len(evaluation.chain_rates()), evaluation.chain_interval
        chains = f"of {longest} tasks in a row, in {len(evaluation.chains)} chains"
        reach = f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else ""
        facts.append(Fact("average chain length", f"{evaluation.chain_length:.2f}", chains, reach))
    return facts


def condition_columns(evaluation: Evaluation) -> list[Column]:
    """Return a column for each condition under which tasks were attempted singly, not in chains."""
    conditions = [condition for condition in evaluation.conditions if evaluation.by_task(condition)]
    return [
        Column(condition_name(condition), number, evaluation, condition)
        for number, condition in enumerate(conditions, 1)
    ]


def condition_name(condition: str) -> str:
    """Return the name by which pages call a condition."""
    return CONDITION_NAMES.get(condition, condition.replace("_", " "))


def success_table(columns: Sequence[Column]) -> SuccessTable | None:
    """Return the success rate of each task, with averages; None if only chains were tried."""
    columns = [column for column in columns if column.evaluation.by_task(column.condition)]
    if not columns:
        return None
    tasks = [column.evaluation.by_task(column.condition) for column in columns]
    rows = [
        Row(task, [_outcome_cell(outcomes.get(task)) for outcomes in tasks])
        for task in _all_keys(tasks)
    ]
    averages = [*_tier_rows(columns), *_overall_rows(columns)] if len(rows) > 1 else []
    return SuccessTable("task", columns, rows, averages)


def chain_table(columns: Sequence[Column]) -> SuccessTable | None:
    """Return the share of chains with at least 1, 2, 3 ... tasks done; None without chains."""
    columns = [column for column in columns if column.evaluation.chains]
    if not columns:
        return None
    by_length = [dict(enumerate(column.evaluation.chain_outcomes(), 1)) for column in columns]
    longest = max(len(outcomes) for outcomes in by_length)
    rows = [
        Row(f"{length} or more", [_outcome_cell(outcomes.get(length)) for outcomes in by_length])
        for length in range(1, longest + 1)
    ]
    return SuccessTable("tasks in a row", columns, rows)


def _all_keys(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _tier_rows(columns: Sequence[Column]) -> list[Row]:
    """Return a row for each tier of several tasks but not all: others would repeat a row."""
    tiers = [_tier_cells(column) for column in columns]
    return [Row(f"mean, {tier}", [cells.get(tier) for cells in tiers]) for tier in _all_keys(tiers)]


def _tier_cells(column: Column) -> dict[str, Cell]:
    """Return {tier: mean of its tasks' rates, with the counts of its attempts}."""
    attempts = column.evaluation.attempts_by_tier(column.condition)
    means = column.evaluation.by_tier(column.condition)
    tiers = column.evaluation.telling_tiers(column.condition)
    return {tier: Cell(means[tier], attempts[tier]) for tier in tiers}


def _overall_rows(columns: Sequence[Column]) -> list[Row]:
    """Return a row for the mean of all tasks, and rows for other averages if they differ from it.

    The mean of tiers differs if tiers have different numbers of tasks, the rate of all attempts if
    tasks have different numbers of attempts.
    """
    overall = [column.evaluation.overall(column.condition) for column in columns]
    of_tiers = [column.evaluation.mean_of_tiers(column.condition) for column in columns]
    of_tasks = [
        Cell(column.mean, outcome if percent(outcome.rate) == percent(column.mean) else None)
        for column, outcome in zip(columns, overall, strict=True)
    ]
    rows = [
        Row("mean of tiers", [_mean_cell(mean) for mean in of_tiers]),
        Row("mean of tasks", of_tasks),
        Row("all attempts", [_outcome_cell(outcome) for outcome in overall]),
    ]
    return [row for row in rows if row.cells is of_tasks or _differ(row.cells, of_tasks)]


def _differ(cells: Sequence[Cell | None], others: Sequence[Cell]) -> bool:
    """Return whether cells, apart from those not measured, show other rates than others."""
    return any(
        cell is not None and percent(cell.rate) != percent(other.rate)
        for cell, other in zip(cells, others, strict=True)
    )


def _outcome_cell(outcome: Rate | None) -> Cell | None:
    return Cell(outcome.rate, outcome) if outcome else None


def _mean_cell(rate: float | None) -> Cell | None:
    return None if rate is None else Cell(rate)
