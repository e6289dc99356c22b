"""Success rates and means over attempts, with intervals that say how far chance may have gone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any, Self

from scipy.special import stdtrit


@dataclass(frozen=True)
class Rate:
    """A success rate, with Wilson's 95 % interval."""

    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        """The share of successes, between 0 and 1."""
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % score interval (Wilson, 1927).

        Unlike the normal approximation, it is valid for rates near 0 and 1 and for few episodes.
        """
        z, n, p = 1.959964, self.episodes, self.rate
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the derived rate and interval."""
        return {**asdict(self), "rate": self.rate, "interval": self.interval}


@dataclass(frozen=True)
class MeanScore:
    """A mean over attempts, with Student's 95 % interval.

    interval: lower and upper end; None for a single attempt, and for attempts of one score, since
        such a spread says nothing of others. For few attempts it may reach beyond the scores that
        are possible.
    """

    mean: float
    attempts: int
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, scores: Sequence[float]) -> Self:
        """Return the mean of the scores of at least one attempt."""
        mean, count = fmean(scores), len(scores)
        if min(scores) == max(scores):
            return cls(mean, count, None)
        half = float(stdtrit(count - 1, 0.975)) * stdev(scores, mean) / sqrt(count)
        return cls(mean, count, (mean - half, mean + half))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def interval_within(values: Sequence[int], lowest: int, highest: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of several values, within what is possible.

    It is Student's. If all n values are equal, their spread says nothing of others. Then at most a
    share q of the others may lie anywhere, with q the upper end of Wilson's interval for 0 of n.
    """
    mean = MeanScore.of(values)
    if mean.interval is None:
        _, share = Rate(0, len(values)).interval
        value = mean.mean
        return value + share * (lowest - value), value + share * (highest - value)
    return max(float(lowest), mean.interval[0]), min(float(highest), mean.interval[1])
