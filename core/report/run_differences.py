"""Says in words by how much the success of evaluations differs, and whether that may be chance.

Where two evaluations made the same attempts - task, seed and instruction agree - their results come
in pairs, and McNemar's exact test needs only the pairs in which one succeeded and the other failed
(McNemar, 1947). Otherwise the rates are compared as those of independent samples. Intervals of
differences are Newcombe's, which combine Wilson's intervals (Newcombe, "Interval estimation for the
difference between independent proportions" and "Improved confidence intervals for the difference
between binomial proportions based on paired data", 1998).
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from scipy.special import bdtr

from core.environments.repeatability import is_another_scene
from core.rollout.intervals import Rate, interval_within
from core.rollout.results import STANDARD, Evaluation

# a p-value below this, and an interval of 95 % without zero, is called more than chance
LEVEL = 0.05


@dataclass(frozen=True)
class Pairs:
    """The attempts that two evaluations made alike: how often both, one or none succeeded."""

    both: int
    first_alone: int
    second_alone: int
    neither: int

    @classmethod
    def of(cls, first: Mapping[Hashable, bool], second: Mapping[Hashable, bool]) -> "Pairs":
        """Count the pairs; each evaluation is {attempt: whether it succeeded}."""
        outcomes = [(first[attempt], second[attempt]) for attempt in first.keys() & second.keys()]
        both, alone, other = (True, True), (True, False), (False, True)
        counts = [outcomes.count(kind) for kind in (both, alone, other, (False, False))]
        return cls(*counts)

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.both + self.first_alone + self.second_alone + self.neither

    @property
    def p_value(self) -> float:
        """How probable it is that chance alone distributes the unequal pairs at least so unevenly.

        This is McNemar's exact test, two-sided: the binomial test of the unequal pairs.
        """
        unequal = self.first_alone + self.second_alone
        fewer = min(self.first_alone, self.second_alone)
        return min(1.0, 2 * float(bdtr(fewer, unequal, 0.5)))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the second rate minus the first (Newcombe's for paired data)."""
        a, b, c, d = self.both, self.first_alone, self.second_alone, self.neither
        product = (a + b) * (c + d) * (a + c) * (b + d)
        excess = float(a * d - b * c)
        if excess > 0:
            excess = max(excess - self.count / 2, 0.0)  # Newcombe's continuity correction
        correlation = excess / sqrt(product) if product else 0.0
        first, second = Rate(a + b, self.count), Rate(a + c, self.count)
        return difference_interval(first, second, correlation)


def difference_interval(first: Rate, second: Rate, correlation: float = 0.0) -> tuple[float, float]:
    """Return the 95 % interval of the second rate minus the first.

    correlation: between the two outcomes of a pair, from -1 to 1; 0 for independent samples.
    """
    (low_1, high_1), (low_2, high_2) = first.interval, second.interval
    below_1, above_1 = first.rate - low_1, high_1 - first.rate
    below_2, above_2 = second.rate - low_2, high_2 - second.rate

    def combined(one: float, other: float) -> float:
        return sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    difference = second.rate - first.rate
    return difference - combined(below_2, above_1), difference + combined(above_2, below_1)


def describe_differences(
    names: Sequence[str], evaluations: Sequence[Evaluation | None]
) -> list[str]:
    """Return sentences that compare each evaluation with the first one.

    evaluations: None for a run that was not evaluated.
    """
    known = [(n, e) for n, e in zip(names, evaluations, strict=True) if e is not None]
    sentences = []
    for name, evaluation in known[1:]:
        first_name, first = known[0]
        sentences += _success(first_name, first, name, evaluation)
        sentences += _chains(first_name, first, name, evaluation)
    return sentences


def _success(first_name: str, first: Evaluation, name: str, second: Evaluation) -> list[str]:
    """Compare the success at single tasks: by pairs, and unpaired if some attempts have no pair."""
    tasks = first.by_task().keys() & second.by_task().keys()
    if not tasks:
        alone = first.by_task() and second.by_task()
        return [f"{name} and {first_name} attempted no task in common."] if alone else []
    one, other = _attempts(first, tasks), _attempts(second, tasks)
    repeats = _repeats_scenes(first) and _repeats_scenes(second)
    pairs = Pairs.of(one, other if repeats else {})
    sentences = []
    if pairs.count:
        sentences.append(_paired(first_name, name, pairs))
    if pairs.count < max(len(one), len(other)):
        rates = [Rate(sum(attempts.values()), len(attempts)) for attempts in (one, other)]
        is_part = len(tasks) < len(first.by_task().keys() | second.by_task().keys())
        where = f", at the {_count(len(tasks), 'task')} that both attempted" if is_part else ""
        count = f"only {pairs.count}" if pairs.count else "none"
        what = "task, seed and instruction" if repeats else "scene: a seed shows another each time"
        alike = f"{count} of them equal in {what}"
        sentences.append(_unpaired(first_name, name, rates[0], rates[1], where, alike))
    return sentences


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


def _paired(first_name: str, name: str, pairs: Pairs) -> str:
    difference = (pairs.second_alone - pairs.first_alone) / pairs.count
    p = pairs.p_value
    return (
        f"{name} and {first_name} made {_count(pairs.count, 'equal attempt')}, of the same task, "
        f"seed and instruction: {name} alone succeeded in {pairs.second_alone}, {first_name} alone "
        f"in {pairs.first_alone}. That is {_points(difference)} (95% interval "
        f"{_bounds(pairs.interval)}); by McNemar's exact test p = {_p(p)}, "
        f"{'more than chance' if p < LEVEL else 'which may be chance'}."
    )


def _unpaired(first_name: str, name: str, first: Rate, second: Rate, where: str, alike: str) -> str:
    low, high = bounds = difference_interval(first, second)
    is_more = low > 0 or high < 0
    return (
        f"{name} succeeded in {second.successes} of {second.episodes} attempts and {first_name} in "
        f"{first.successes} of {first.episodes}{where}; {alike}. Unpaired, that is "
        f"{_points(second.rate - first.rate)} (95% interval {_bounds(bounds)}), "
        f"{'more than chance' if is_more else 'which may be chance'}."
    )


def _chains(first_name: str, first: Evaluation, name: str, second: Evaluation) -> list[str]:
    """Compare the lengths of chains that have the same seed and tasks."""
    lengths = [_lengths(e) if _repeats_scenes(e) else {} for e in (first, second)]
    equal = sorted(lengths[0].keys() & lengths[1].keys())
    if len(equal) < 2:
        return []
    longest = max(len(tasks) for _, _, tasks in equal)
    differences = [lengths[1][chain] - lengths[0][chain] for chain in equal]
    mean, (low, high) = fmean(differences), interval_within(differences, -longest, longest)
    is_more = low > 0 or high < 0
    return [
        f"In {len(equal)} equal chains, {name} did {abs(mean):.2f} tasks "
        f"{'fewer' if mean < 0 else 'more'} in a row than {first_name} (95% interval of the "
        f"difference {low:.2f} to {high:.2f}), "
        f"{'more than chance' if is_more else 'which may be chance'}."
    ]


def _lengths(evaluation: Evaluation) -> dict[tuple[str, int, tuple[str, ...]], int]:
    environment = str(evaluation.environment.get("name"))
    return {(environment, chain.seed, chain.tasks): chain.done for chain in evaluation.chains}


def _points(difference: float) -> str:
    points = f"{100 * abs(difference):.1f}".removesuffix(".0")
    return f"{points} percentage points {'less' if difference < 0 else 'more'}"


def _bounds(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
