"""Scores of attempts: what the scores of single steps come to, and means over attempts.

Benchmarks report different things. PushT reports the highest coverage of an episode (Chi et al.,
"Diffusion Policy", 2023), and robosuite and Gymnasium report the return, the sum of all rewards. So
an attempt keeps the best, the mean and the sum of the scores of its steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum, sqrt
from statistics import fmean, stdev
from typing import Any, Literal, Self

from scipy.special import stdtrit

Measure = Literal["best", "mean", "sum"]
"""The highest score of an attempt's steps, their mean, or their sum (the return)."""
MEASURES: Mapping[Measure, str] = {
    "best": "best score",
    "mean": "mean score",
    "sum": "sum of scores",
}
"""{measure: its name on pages and in the console}."""


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


def summarize(scores: Sequence[float]) -> dict[Measure, float]:
    """Return each measure of an attempt, given the scores of its steps; nothing without scores."""
    if not scores:
        return {}
    return {"best": max(scores), "mean": fmean(scores), "sum": fsum(scores)}
