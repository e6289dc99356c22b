"""Compares ways of training, each run with the same several seeds, seed by seed.

A seed is a sample: its initial weights and its order of the data. Attempts of one run are no
samples of a way of training, since they share the run's weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, stdev

from scipy.special import stdtr

from core.rollout.intervals import MeanScore

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval (Student's t; a seed is a sample)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A way of training against the baseline, paired by seed.

    rates: success of each seed, in the order of the seeds.
    success: their mean.
    difference: the success minus that of the baseline.
    p: of a two-sided paired t-test, corrected for the number of comparisons (Holm 1979).
    """

    key: str
    rates: tuple[float, ...]
    success: Estimate
    difference: Estimate
    p: float

    @property
    def is_significant(self) -> bool:
        """Whether the difference is more than chance."""
        return self.p < 1 - LEVEL

    @property
    def verdict(self) -> str:
        """What the test says, in words."""
        if not self.is_significant:
            return "no difference shown"
        return "better" if self.difference.mean > 0 else "worse"


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of the seeds' values with its interval; equal values have none."""
    score = MeanScore.of(values)
    return Estimate(score.mean, *(score.interval or (score.mean, score.mean)))


def compare(baseline: Sequence[float], others: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Compare each way of training with the baseline; values in the same order of seeds.

    baseline, others: value of each seed, {key: value of each seed}; two seeds or more.
    """
    pairs = {key: (baseline, rates) for key, rates in others.items()}
    return compare_pairs(pairs)


def compare_pairs(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> list[Comparison]:
    """Compare each way of training with the baseline, at the seeds that both have.

    pairs: {key: (values of the baseline, values of this way)}, in the same order of two seeds or
        more.
    """
    comparisons = []
    for key, (baseline, values) in pairs.items():
        # rounded, because equal differences of rates may differ in their last binary digit
        differences = [round(v - b, 9) for v, b in zip(values, baseline, strict=True)]
        p = p_of_mean(differences)
        comparisons.append(
            Comparison(key, tuple(values), estimate(values), estimate(differences), p)
        )
    corrected = holm([comparison.p for comparison in comparisons])
    return [replace(c, p=p) for c, p in zip(comparisons, corrected, strict=True)]


def p_of_mean(differences: Sequence[float]) -> float:
    """Return the p-value of a two-sided t-test of whether the mean difference is zero.

    Equal differences have no spread, of which the test could tell. Then it is that of the exact
    test by signs: how often n coins fall alike.
    """
    count = len(differences)
    if len(set(differences)) == 1:
        return 1.0 if differences[0] == 0 else 2.0 ** (1 - count)
    t = fmean(differences) * sqrt(count) / stdev(differences)
    return 2 * float(stdtr(count - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979), in the same order."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
