"""Success of each way of training over the seeds, and its difference from joint training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval (Student's t; a seed is a sample)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A condition against the baseline, paired by seed.

    rates: success of each seed, in the order of the seeds.
    success: their mean.
    difference: the condition's success minus that of the baseline.
    p: of a two-sided paired t-test, corrected for the number of comparisons (Holm 1979).
    """

    key: str
    rates: tuple[float, ...]
    success: Estimate
    difference: Estimate
    p: float

    @property
    def verdict(self) -> str:
        """What the test says, in words."""
        if self.p >= 1 - LEVEL:
            return "no difference shown"
        return "better" if self.difference.mean > 0 else "worse"


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of the seeds' values with its interval."""
    mean = fmean(values)
    if len(set(values)) == 1:
        return Estimate(mean, mean, mean)
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(LEVEL)
    return Estimate(mean, float(interval.low), float(interval.high))


def compare(baseline: Sequence[float], others: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Compare each condition with the baseline; success rates in the same order of seeds.

    baseline, others: success of each seed, {key: success of each seed}; two seeds or more.
    """
    comparisons = []
    for key, rates in others.items():
        # rounded, because equal differences of rates may differ in their last binary digit
        differences = [round(rate - base, 9) for rate, base in zip(rates, baseline, strict=True)]
        # equal differences have no spread, and the test would divide by zero
        if len(set(differences)) == 1:
            p = 1.0 if differences[0] == 0 else 0.0
        else:
            p = float(stats.ttest_1samp(differences, 0.0).pvalue)
        comparisons.append(Comparison(key, tuple(rates), estimate(rates), estimate(differences), p))
    corrected = holm([comparison.p for comparison in comparisons])
    return [replace(c, p=p) for c, p in zip(comparisons, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979), in the same order."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
