"""Says by how much the success of evaluations differs, and whether that may be chance.

Where two evaluations made the same attempts - task, seed and instruction agree - their results come
in pairs. Otherwise the rates are compared as those of independent samples.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from core.environments.repeatability import is_another_scene
from core.report.paired_rates import Pairs, difference_interval
from core.report.wording import percent
from core.rollout.intervals import Rate, interval_within
from core.rollout.results import STANDARD, Evaluation

# a p-value below this, and an interval of 95 % without zero, is called more than chance
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A row of the table: one evaluation against the first one, in the words of the page.

    number: of the run, from 1
    result, first: what the evaluation and the first one reached in what is compared
    of_result, of_first: out of how much; empty for chains
    difference: the result minus that of the first, with its unit
    interval: its 95 % interval, in the same unit
    compared: how many pairs, or that the attempts are unpaired
    detail: how the pairs ended, or why there are none
    p: the p-value of McNemar's exact test; empty if it was not made
    """

    number: int
    name: str
    result: str
    of_result: str
    first: str
    of_first: str
    difference: str
    interval: str
    compared: str
    detail: str
    p: str
    verdict: str


@dataclass(frozen=True)
class DifferenceTable:
    """The differences of evaluations from the first one.

    groups: {what is compared: a row for each other evaluation}
    apart: names of the runs that attempted no single task in common with the first
    """

    number: int
    first: str
    groups: Mapping[str, Sequence[Difference]]
    apart: Sequence[str]


@dataclass(frozen=True)
class _Run:
    """An evaluation with the number and the name that its run has on the page."""

    number: int
    name: str
    evaluation: Evaluation


def difference_table(
    names: Sequence[str], evaluations: Sequence[Evaluation | None]
) -> DifferenceTable | None:
    """Compare each evaluation with the first one; return None if there is nothing to compare.

    evaluations: None for a run that was not evaluated.
    """
    runs = [
        _Run(number, name, evaluation)
        for number, (name, evaluation) in enumerate(zip(names, evaluations, strict=True), 1)
        if evaluation is not None
    ]
    if len(runs) < 2:
        return None
    first, *others = runs
    groups = {
        "single tasks": [row for other in others for row in _success(first, other)],
        "chains": [row for other in others for row in _chains(first, other)],
    }
    apart = [other.name for other in others if _attempt_different_tasks(first, other)]
    known = {group: rows for group, rows in groups.items() if rows}
    return DifferenceTable(first.number, first.name, known, apart) if known or apart else None


def _attempt_different_tasks(first: _Run, other: _Run) -> bool:
    tasks, others = (run.evaluation.by_task().keys() for run in (first, other))
    return bool(tasks and others) and not tasks & others


def _success(first: _Run, other: _Run) -> list[Difference]:
    """Compare the success at single tasks: by pairs, and unpaired if some attempts have no pair."""
    by_task = first.evaluation.by_task(), other.evaluation.by_task()
    tasks = by_task[0].keys() & by_task[1].keys()
    one, two = (_attempts(run.evaluation, tasks) for run in (first, other))
    if not tasks:
        return []
    repeats = _repeats_scenes(first.evaluation) and _repeats_scenes(other.evaluation)
    pairs = Pairs.of(one, two if repeats else {})
    rows = [_paired(other, pairs)] if pairs.count else []
    if pairs.count < max(len(one), len(two)):
        alike = f"only {pairs.count}" if pairs.count else "none"
        why = f"{alike} equal in task, seed and instruction"
        if not repeats:
            why = "a seed shows another scene each time"
        if len(tasks) < len(by_task[0].keys() | by_task[1].keys()):
            why += f"; at the {_count(len(tasks), 'task')} that both attempted"
        rates = [Rate(sum(attempts.values()), len(attempts)) for attempts in (one, two)]
        rows.append(_unpaired(other, rates[0], rates[1], why))
    return rows


def _attempts(evaluation: Evaluation, tasks: Collection[str]) -> dict[Hashable, bool]:
    """Return {attempt: whether it succeeded} without controls; equal attempts show one scene."""
    environment = str(evaluation.environment.get("name"))
    return {
        (environment, episode.task, episode.seed, episode.instruction): episode.success
        for episode in evaluation.episodes
        if episode.condition == STANDARD and episode.task in tasks
    }


def _repeats_scenes(evaluation: Evaluation) -> bool:
    """Return whether a seed shows the same scene twice, as far as the evaluation has tried it."""
    return not is_another_scene(str(evaluation.environment.get("same_scene_twice", "")))


def _paired(run: _Run, pairs: Pairs) -> Difference:
    first = Rate(pairs.both + pairs.first_alone, pairs.count)
    second = Rate(pairs.both + pairs.second_alone, pairs.count)
    return _row(
        run,
        (first, second),
        pairs.interval,
        compared=_count(pairs.count, "pair"),
        detail=f"{pairs.second_alone} won, {pairs.first_alone} lost",
        p=_p(pairs.p_value),
        is_more=pairs.p_value < LEVEL,
    )


def _unpaired(run: _Run, first: Rate, second: Rate, why: str) -> Difference:
    low, high = bounds = difference_interval(first, second)
    return _row(
        run,
        (first, second),
        bounds,
        compared="unpaired",
        detail=why,
        p="",
        is_more=low > 0 or high < 0,
    )


def _row(
    run: _Run,
    rates: tuple[Rate, Rate],
    bounds: tuple[float, float],
    *,
    compared: str,
    detail: str,
    p: str,
    is_more: bool,
) -> Difference:
    """Return the row of two success rates."""
    first, second = rates
    difference = second.rate - first.rate
    points = f"{100 * difference:+.1f}".removesuffix(".0")
    return Difference(
        number=run.number,
        name=run.name,
        result=percent(second.rate),
        of_result=f"{second.successes} of {second.episodes}",
        first=percent(first.rate),
        of_first=f"{first.successes} of {first.episodes}",
        difference=f"{points if difference else 0} points",
        interval=f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}",
        compared=compared,
        detail=detail,
        p=p,
        verdict=_verdict(difference, is_more),
    )


def _chains(first: _Run, other: _Run) -> list[Difference]:
    """Compare the lengths of chains that have the same seed and tasks."""
    lengths = [
        _lengths(run.evaluation) if _repeats_scenes(run.evaluation) else {}
        for run in (first, other)
    ]
    equal = sorted(lengths[0].keys() & lengths[1].keys())
    if len(equal) < 2:
        return []
    longest = max(len(tasks) for _, _, tasks in equal)
    one, two = ([done[chain] for chain in equal] for done in lengths)
    differences = [b - a for a, b in zip(one, two, strict=True)]
    mean, (low, high) = fmean(differences), interval_within(differences, -longest, longest)
    longer, shorter = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return [
        Difference(
            number=other.number,
            name=other.name,
            result=f"{fmean(two):.2f} tasks",
            of_result="",
            first=f"{fmean(one):.2f} tasks",
            of_first="",
            difference=f"{mean:+.2f} tasks" if mean else "0 tasks",
            interval=f"{low:.2f} to {high:.2f}",
            compared=_count(len(equal), "pair"),
            detail=f"{longer} longer, {shorter} shorter",
            p="",
            verdict=_verdict(mean, low > 0 or high < 0),
        )
    ]


def _lengths(evaluation: Evaluation) -> dict[tuple[str, int, tuple[str, ...]], int]:
    environment = str(evaluation.environment.get("name"))
    return {(environment, chain.seed, chain.tasks): chain.done for chain in evaluation.chains}


def _verdict(difference: float, is_more: bool) -> str:
    """Say which evaluation is better, if chance alone does not explain the difference."""
    if not is_more:
        return "may be chance"
    return "better" if difference > 0 else "worse"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
