"""What an evaluation found, as data: RUN/evaluation/results.json holds an `Evaluation`, and reports
read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import DataError

STANDARD = "standard"  # the condition that is no control


@dataclass(frozen=True)
class EpisodeResult:
    """One attempt.

    condition: "standard", or the control under which the policy acted: "blank_images",
    "swapped_words".
    success, steps: whether the task was done, and control steps until then, or until the attempt
    was given up.
    failure: why the environment could not finish the episode, which then counts as failed; None: it
    did.
    """

    condition: str
    task: str
    seed: int
    instruction: str
    success: bool
    steps: int
    failure: str | None = None


@dataclass(frozen=True)
class ChainResult:
    """One chain of tasks, done in turn without a reset until the first failure (CALVIN's
    long-horizon protocol).
    """

    seed: int
    tasks: tuple[str, ...]
    instructions: tuple[str, ...]
    done: int  # tasks completed before the first failure
    steps: int
    failure: str | None = None


Result = EpisodeResult | ChainResult


@dataclass(frozen=True)
class Timing:
    """What the time between two results went into.

    seconds: of the whole evaluation.
    inference_ms: milliseconds of each policy step.
    busy_rows: rows of the policy's batch in which an attempt or chain went on, summed over the
    steps.
    """

    seconds: float
    inference_ms: tuple[float, ...]
    busy_rows: int


@dataclass(frozen=True)
class Rate:
    """Successes among episodes, with Wilson's 95 % interval."""

    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        """Share of successes."""
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval (1927) at 95 %: unlike the normal one it holds near 0 and 1 and
        for few episodes.
        """
        z, n, p = 1.959964, self.episodes, self.rate
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Evaluation:
    """Everything that one evaluation found, and what it takes to repeat it.

    policy: {"run", "checkpoint" (folder name), "step", "recipe_sha256", "weights_sha256",
    "parameters"}.
    environment: {"name", "config", "versions"}; versions include Joinery's, torch's and Python's.
    protocol: {"episodes", "first_seed", "execute", "lanes", "success", ...}.
    tiers: {task: tier}.
    time: {"inference_ms": median milliseconds per policy step over all lanes, "policy_steps",
        "rows_busy": share of the policy's rows in which an attempt went on, "steps_per_second",
        "seconds"}; what repeating an evaluation may change.
    """

    policy: Mapping[str, Any]
    environment: Mapping[str, Any]
    protocol: Mapping[str, Any]
    tiers: Mapping[str, str]
    episodes: Sequence[EpisodeResult]
    chains: Sequence[ChainResult]
    time: Mapping[str, float]

    @property
    def conditions(self) -> list[str]:
        """The conditions under which single tasks were tried, the standard one first."""
        measured = dict.fromkeys(episode.condition for episode in self.episodes)
        return sorted(measured, key=lambda condition: condition != STANDARD)

    def by_task(self, condition: str = STANDARD) -> dict[str, Rate]:
        """{task: rate} under one condition, in the order of evaluation."""
        outcomes: dict[str, list[bool]] = {}
        for episode in self.episodes:
            if episode.condition == condition:
                outcomes.setdefault(episode.task, []).append(episode.success)
        return {task: Rate(sum(done), len(done)) for task, done in outcomes.items()}

    def overall(self, condition: str = STANDARD) -> Rate:
        """All tasks' episodes together."""
        rates = self.by_task(condition).values()
        return Rate(sum(rate.successes for rate in rates), sum(rate.episodes for rate in rates))

    def mean(self, condition: str = STANDARD) -> float:
        """Mean of the tasks' success rates."""
        return fmean(rate.rate for rate in self.by_task(condition).values())

    def by_tier(self, condition: str = STANDARD) -> dict[str, float]:
        """{tier: mean of its tasks' success rates}, for tasks that have a tier."""
        tiers: dict[str, list[float]] = {}
        for task, rate in self.by_task(condition).items():
            if tier := self.tiers.get(task):
                tiers.setdefault(tier, []).append(rate.rate)
        return {tier: fmean(rates) for tier, rates in tiers.items()}

    @property
    def chain_length(self) -> float | None:
        """Mean number of tasks done in a row; None where no chains were tried."""
        return fmean(chain.done for chain in self.chains) if self.chains else None

    def chain_rates(self) -> list[float]:
        """Share of chains that completed at least 1, 2, 3 ... tasks, as CALVIN's tables give them."""
        longest = max((len(chain.tasks) for chain in self.chains), default=0)
        return [
            sum(c.done >= n for c in self.chains) / len(self.chains) for n in range(1, longest + 1)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data, the derived numbers with it for readers in other languages."""
        summary = {
            condition: {
                "mean": self.mean(condition),
                "tiers": self.by_tier(condition),
                "tasks": {
                    task: {
                        "successes": r.successes,
                        "episodes": r.episodes,
                        "rate": r.rate,
                        "interval": r.interval,
                    }
                    for task, r in self.by_task(condition).items()
                },
            }
            for condition in self.conditions
        }
        chains = {"average_length": self.chain_length, "rates": self.chain_rates()}
        derived = {"summary": summary, "chains_summary": chains}
        return {"format": "joinery-evaluation", "version": 1, **derived, **asdict(self)}


def read_evaluation(path: Path) -> Evaluation:
    """Read a results.json; raises DataError, naming the file, for one that is missing or damaged."""
    try:
        return TypeAdapter(Evaluation).validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot read it ({error.strerror}); evaluate the run first"
        ) from None
    except (ValidationError, ValueError) as error:
        raise DataError(
            f"{path}: no evaluation ({str(error).splitlines()[0]}); evaluate the run again"
        ) from None
