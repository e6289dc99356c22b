"""Results of an evaluation: RUN/evaluation/results.json holds an `Evaluation`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from core.errors import DataError
from core.rollout.intervals import MeanScore, Rate, interval_within
from core.rollout.scores import MEASURES, Measure

End = Literal["success", "ended", "max_steps", "failure"]
"""Why an attempt ended: the task was done, the environment ended the episode, the task's steps were
used up, or the environment failed.
"""
# the condition without any control; plan.py names the other conditions
STANDARD = "standard"


@dataclass(frozen=True)
class EpisodeResult:
    """The result of one attempt.

    condition: "standard", or the name of the control under which the policy acted: "blank_images",
        "swapped_words" or "blank_history".
    success: whether the task was done.
    steps: control steps until the attempt ended.
    failure: None, or why the environment failed; the attempt then counts as failed.
    ended: whether the environment ended the attempt without success, before its largest number of
        steps.
    score_best, score_mean, score_sum: the highest score of the attempt's steps, their mean and
        their sum; None if the environment gives no scores. If it failed, those until then.
    metrics: {name: {measure: number}} of the further metrics that the environment gives; "best" is
        the highest value.
    jerk: how rough the executed actions were; see `core/rollout/smoothness.py`. None if they were
        too few to tell.
    """

    condition: str
    task: str
    seed: int
    instruction: str
    success: bool
    steps: int
    failure: str | None = None
    ended: bool = False
    score_best: float | None = None
    score_mean: float | None = None
    score_sum: float | None = None
    metrics: Mapping[str, Mapping[Measure, float]] = field(default_factory=dict)
    jerk: float | None = None

    @property
    def end(self) -> End:
        """Why the attempt ended."""
        if self.failure:
            return "failure"
        if self.success:
            return "success"
        return "ended" if self.ended else "max_steps"

    def score(self, measure: Measure) -> float | None:
        """Return one measure of the scores; None if the environment gives none."""
        return {"best": self.score_best, "mean": self.score_mean, "sum": self.score_sum}[measure]


@dataclass(frozen=True)
class ChainResult:
    """The result of a chain: tasks attempted in turn without a reset, until the first failure.

    The long-horizon protocol of the CALVIN benchmark evaluates such chains.

    tasks: all tasks of the chain.
    instructions: the instructions of the tasks that were attempted.
    done: number of tasks completed before the first failure.
    steps: control steps of all tasks together.
    failure: None, or why the environment failed; the chain then ends.
    """

    seed: int
    tasks: tuple[str, ...]
    instructions: tuple[str, ...]
    done: int
    steps: int
    failure: str | None = None


Result = EpisodeResult | ChainResult


@dataclass(frozen=True)
class Timing:
    """The time between the end of one rollout and the end of the next.

    seconds: the time between the two ends.
    inference_ms: duration in milliseconds of each policy step in that time.
    busy_rows: number of rows of the policy's batch that had a rollout, summed over these policy
        steps.
    """

    seconds: float
    inference_ms: tuple[float, ...]
    busy_rows: int


@dataclass(frozen=True)
class Evaluation:
    """All results of an evaluation, and everything that is needed to repeat the evaluation.

    policy: {"run", "checkpoint" (folder name), "step", "recipe_sha256", "weights_sha256",
        "parameters", "components": {section of the recipe: its component and package},
        "trained_on": {store: where its data come from}, "packages"}.
    environment: {"name", "config", "versions"}; the versions include those of Joinery, torch, numpy
        and Python.
    protocol: {"episodes", "first_seed", "execute", "lanes", "success", ...}; "lanes" is the number
        of rows of the policy's batch, "execute" the number of actions executed of each chunk.
    tiers: {task: tier}.
    time: what differs when an evaluation is repeated: {"inference_ms": median milliseconds of a
        policy step, "latency_ms": that of a policy step for one robot, "policy_steps": number of
        policy steps, "rows_busy": share of the policy's rows that had a rollout,
        "steps_per_second": control steps per second, "seconds": total time}.
    missing: number of planned attempts and chains without a result, because the evaluation was
        interrupted; None if it was interrupted, and nobody knows how many it planned.
    hints: lines that tell what may be the reason for a low success rate, as other images or
        versions than in the training data.
    """

    policy: Mapping[str, Any]
    environment: Mapping[str, Any]
    protocol: Mapping[str, Any]
    tiers: Mapping[str, str]
    episodes: Sequence[EpisodeResult]
    chains: Sequence[ChainResult]
    time: Mapping[str, float]
    missing: int | None = 0
    hints: Sequence[str] = ()

    @property
    def interruption(self) -> str:
        """How far an evaluation came that was interrupted; "" if it is complete."""
        if self.missing == 0:
            return ""
        ended = len(self.episodes) + len(self.chains)
        what = "attempts and chains" if self.chains else "attempts"
        if self.missing is None:
            return f"interrupted after {ended} {what}"
        return f"interrupted after {ended} of {ended + self.missing} {what}"

    @property
    def conditions(self) -> list[str]:
        """The conditions of the attempts; the standard condition is first."""
        conditions = dict.fromkeys(episode.condition for episode in self.episodes)
        return sorted(conditions, key=lambda condition: condition != STANDARD)

    def by_task(self, condition: str = STANDARD) -> dict[str, Rate]:
        """Return {task: success rate} under one condition, in the order of the plan."""
        successes: dict[str, list[bool]] = {}
        for episode in self.episodes:
            if episode.condition == condition:
                successes.setdefault(episode.task, []).append(episode.success)
        return {task: Rate(sum(values), len(values)) for task, values in successes.items()}

    def overall(self, condition: str = STANDARD) -> Rate:
        """Return the success rate over the attempts at all tasks."""
        return _pooled(self.by_task(condition).values())

    def mean(self, condition: str = STANDARD) -> float:
        """Return the mean of the tasks' success rates; every task has the same weight."""
        return fmean(rate.rate for rate in self.by_task(condition).values())

    def by_tier(self, condition: str = STANDARD) -> dict[str, float]:
        """Return {tier: mean success rate of its tasks}; tasks without a tier do not count."""
        tiers: dict[str, list[float]] = {}
        for task, rate in self.by_task(condition).items():
            if tier := self.tiers.get(task):
                tiers.setdefault(tier, []).append(rate.rate)
        return {tier: fmean(rates) for tier, rates in tiers.items()}

    def telling_tiers(self, condition: str = STANDARD) -> list[str]:
        """Return the tiers of several tasks, but not of all: any other repeats another rate."""
        tasks = self.by_task(condition)
        sizes = Counter(self.tiers.get(task) for task in tasks)
        return [tier for tier in self.by_tier(condition) if 1 < sizes[tier] < len(tasks)]

    def attempts_by_tier(self, condition: str = STANDARD) -> dict[str, Rate]:
        """Return {tier: success rate over the attempts at all its tasks}.

        If all tasks of a tier have the same number of attempts, this rate is that of `by_tier`.
        """
        tasks = self.by_task(condition)
        return {
            tier: _pooled(rate for task, rate in tasks.items() if self.tiers.get(task) == tier)
            for tier in self.by_tier(condition)
        }

    def mean_of_tiers(self, condition: str = STANDARD) -> float | None:
        """Return the mean of the tiers' means, or None if there are fewer than two tiers."""
        means = self.by_tier(condition).values()
        return fmean(means) if len(means) > 1 else None

    def ends(self, condition: str = STANDARD) -> dict[End, int]:
        """Return {why attempts ended: number of attempts}; see `End`."""
        ends = Counter(episode.end for episode in self.episodes if episode.condition == condition)
        return {end: ends[end] for end in get_args(End)}

    def scores(self, measure: Measure, condition: str = STANDARD) -> dict[str, MeanScore]:
        """Return {task: mean over its attempts}; without the tasks that have no scores."""
        by_task: dict[str, list[float]] = {}
        for episode in self.episodes:
            score = episode.score(measure)
            if episode.condition == condition and score is not None:
                by_task.setdefault(episode.task, []).append(score)
        return {task: MeanScore.of(scores) for task, scores in by_task.items()}

    def mean_score(self, measure: Measure, condition: str = STANDARD) -> MeanScore | None:
        """Return the mean over the attempts at all tasks; None if there are no scores."""
        scores = [
            score
            for episode in self.episodes
            if episode.condition == condition and (score := episode.score(measure)) is not None
        ]
        return MeanScore.of(scores) if scores else None

    def jerk(self, condition: str = STANDARD) -> MeanScore | None:
        """Return the mean jerk of the attempts at all tasks; None if none was measured."""
        jerks = [
            episode.jerk
            for episode in self.episodes
            if episode.condition == condition and episode.jerk is not None
        ]
        return MeanScore.of(jerks) if jerks else None

    def metrics(self, condition: str = STANDARD) -> dict[str, dict[Measure, MeanScore]]:
        """Return {metric: {measure: mean over the attempts at all tasks that have the metric}}."""
        values: dict[str, dict[Measure, list[float]]] = {}
        for episode in self.episodes:
            if episode.condition == condition:
                for name, measures in episode.metrics.items():
                    for measure, value in measures.items():
                        values.setdefault(name, {}).setdefault(measure, []).append(value)
        return {
            name: {measure: MeanScore.of(numbers) for measure, numbers in measures.items()}
            for name, measures in values.items()
        }

    @property
    def chain_length(self) -> float | None:
        """Mean number of tasks done per chain; None if there are no chains."""
        return fmean(chain.done for chain in self.chains) if self.chains else None

    @property
    def chain_interval(self) -> tuple[float, float] | None:
        """Lower and upper end of the 95 % interval of the mean chain length.

        None for fewer than two chains.
        """
        lengths = [chain.done for chain in self.chains]
        if len(lengths) < 2:
            return None
        return interval_within(lengths, 0, max(len(chain.tasks) for chain in self.chains))

    def chain_outcomes(self) -> list[Rate]:
        """Return how many chains have at least 1, 2, 3 ... tasks done, as in CALVIN."""
        longest = max((len(chain.tasks) for chain in self.chains), default=0)
        return [
            Rate(sum(chain.done >= count for chain in self.chains), len(self.chains))
            for count in range(1, longest + 1)
        ]

    def chain_rates(self) -> list[float]:
        """Return the shares of chains with at least 1, 2, 3 ... tasks done, as in CALVIN."""
        return [outcome.rate for outcome in self.chain_outcomes()]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for results.json, with rates and means that other programs can use."""
        summary = {
            condition: {
                "mean": self.mean(condition),
                "mean_of_tiers": self.mean_of_tiers(condition),
                "tiers": self.by_tier(condition),
                "attempts_by_tier": {
                    tier: rate.to_json() for tier, rate in self.attempts_by_tier(condition).items()
                },
                "tasks": {task: rate.to_json() for task, rate in self.by_task(condition).items()},
                "ends": self.ends(condition),
                "jerk": jerk.to_json() if (jerk := self.jerk(condition)) else None,
                "scores": self._scores_to_json(condition),
                "metrics": {
                    name: {measure: mean.to_json() for measure, mean in means.items()}
                    for name, means in self.metrics(condition).items()
                },
            }
            for condition in self.conditions
        }
        chains = {
            "average_length": self.chain_length,
            "interval": self.chain_interval,
            "rates": self.chain_rates(),
            "rate_intervals": [outcome.interval for outcome in self.chain_outcomes()],
        }
        derived = {"summary": summary, "chains_summary": chains}
        return {"format": "joinery-evaluation", "version": 1, **derived, **asdict(self)}

    def _scores_to_json(self, condition: str) -> dict[str, Any]:
        return {
            measure: {
                "all": overall.to_json(),
                "tasks": {
                    task: score.to_json() for task, score in self.scores(measure, condition).items()
                },
            }
            for measure in MEASURES
            if (overall := self.mean_score(measure, condition)) is not None
        }


def _pooled(rates: Iterable[Rate]) -> Rate:
    """Return the success rate over all attempts that the rates count."""
    counts = [(rate.successes, rate.episodes) for rate in rates]
    return Rate(sum(successes for successes, _ in counts), sum(episodes for _, episodes in counts))


def read_evaluation(path: Path) -> Evaluation:
    """Read a results.json; raises DataError if it is missing or damaged."""
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
