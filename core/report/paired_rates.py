"""Compares two success rates, by pairs where the same attempts were made twice.

Of pairs, McNemar's exact test needs only those in which one attempt succeeded and the other failed
(McNemar, 1947). Intervals of differences are Newcombe's, which combine Wilson's intervals
(Newcombe, "Interval estimation for the difference between independent proportions" and "Improved
confidence intervals for the difference between binomial proportions based on paired data", 1998).
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import sqrt

from scipy.special import bdtr

from core.rollout.intervals import Rate


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
