"""Scores of attempts: what the scores of single steps come to.

Benchmarks report different things. PushT reports the highest coverage of an episode (Chi et al.,
"Diffusion Policy", 2023), and robosuite and Gymnasium report the return, the sum of all rewards. So
an attempt keeps the best, the mean and the sum of the scores of its steps, and of other metrics.
"""

from collections.abc import Mapping, Sequence
from math import fsum
from statistics import fmean
from typing import Literal

Measure = Literal["best", "mean", "sum"]
"""The highest score of an attempt's steps, their mean, or their sum (the return)."""
MEASURES: Mapping[Measure, str] = {
    "best": "best score",
    "mean": "mean score",
    "sum": "sum of scores",
}
"""{measure: its name on pages and in the console}."""


def summarize(scores: Sequence[float]) -> dict[Measure, float]:
    """Return each measure of an attempt, given the scores of its steps; nothing without scores."""
    if not scores:
        return {}
    return {"best": max(scores), "mean": fmean(scores), "sum": fsum(scores)}
