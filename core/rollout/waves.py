"""Waves: as many attempts, or chains of tasks, as there are lanes, rolled out together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from core.rollout.contracts import Task
from core.rollout.episodes import Lane, Trial, begin_chain, proceed, reset, roll_out, start, visual_features
from core.rollout.protocol import BLANK, Attempt
from core.rollout.results import ChainResult, EpisodeResult
from core.rollout.workers import Worker

if TYPE_CHECKING:
    from core.rollout.actor import Actor


@dataclass(frozen=True)
class Stage:
    """Who acts, where, and by which rules.

    workers: one environment each, at most `lanes`.
    execute: actions of each chunk that are executed before the policy looks again.
    lanes: the policy's batch.
    """

    actor: "Actor"
    workers: Sequence[Worker]
    tasks: Mapping[str, Task]
    execute: int
    lanes: int


@dataclass(frozen=True)
class Wave:
    """What came of a wave, in the order of its lanes, and the seconds that it took.

    inference_ms: median milliseconds per policy step over all lanes; 0 where there was none.
    """

    episodes: tuple[EpisodeResult, ...] = ()
    chains: tuple[ChainResult, ...] = ()
    seconds: float = 0.0
    inference_ms: float = 0.0

    @property
    def steps(self) -> int:
        """Control steps of all lanes."""
        return sum(episode.steps for episode in self.episodes) + sum(chain.steps for chain in self.chains)


@dataclass
class ChainProgress:
    """How far a chain has come."""

    seed: int
    tasks: Sequence[str]
    instructions: list[str] = field(default_factory=list)
    done: int = 0
    steps: int = 0


def try_tasks(
    stage: Stage, attempts: Sequence[Attempt], records: Callable[[Attempt], bool]
) -> tuple[Wave, list[Trial | None]]:
    """Roll out one attempt per lane; the trials hold what was seen of those that `records` chooses."""
    began = perf_counter()
    lanes = [Lane(worker) for worker in stage.workers[: len(attempts)]]
    views = start(lanes, [(reset, (attempt.task, attempt.seed)) for attempt in attempts])
    visual = visual_features(stage.actor.info)
    trials = [
        Trial(
            lane=lane,
            instruction=attempt.instruction,
            max_steps=stage.tasks[attempt.task].max_steps,
            seen=view[1],
            blank=attempt.condition == BLANK,
            visual=visual,
            records=records(attempt),
        )
        if view
        else None
        for lane, attempt, view in zip(lanes, attempts, views, strict=True)
    ]
    seconds = roll_out(stage.actor, trials, stage.execute, stage.lanes)
    results = tuple(
        EpisodeResult(
            condition=attempt.condition,
            task=attempt.task,
            seed=attempt.seed,
            instruction=attempt.instruction,
            success=trial is not None and trial.success,
            steps=trial.steps if trial else 0,
            failure=lane.failure,
        )
        for attempt, lane, trial in zip(attempts, lanes, trials, strict=True)
    )
    return Wave(episodes=results, seconds=perf_counter() - began, inference_ms=_median_ms(seconds)), trials


def try_chains(stage: Stage, seeds: Sequence[int]) -> Wave:
    """Roll out one chain per lane, from task to task in lockstep; the policy forgets between tasks, as in CALVIN."""
    began = perf_counter()
    lanes = [Lane(worker) for worker in stage.workers[: len(seeds)]]
    views = start(lanes, [(begin_chain, (seed,)) for seed in seeds])
    chains = [ChainProgress(seed, view[0] if view else ()) for seed, view in zip(seeds, views, strict=True)]
    seconds: list[float] = []
    for leg in count():
        going = [chain.done == leg < len(chain.tasks) for chain in chains]
        if not any(going):
            break
        seconds += _try_leg(stage, lanes, chains, going)
    results = tuple(
        ChainResult(chain.seed, tuple(chain.tasks), tuple(chain.instructions), chain.done, chain.steps, lane.failure)
        for chain, lane in zip(chains, lanes, strict=True)
    )
    return Wave(chains=results, seconds=perf_counter() - began, inference_ms=_median_ms(seconds))


def _try_leg(
    stage: Stage, lanes: Sequence[Lane], chains: Sequence[ChainProgress], going: Sequence[bool]
) -> list[float]:
    """Let the chains that are `going` try their next task."""
    tasks = [stage.tasks[chain.tasks[chain.done]] if goes else None for chain, goes in zip(chains, going, strict=True)]
    views = start(lanes, [(proceed, (task.name,)) if task else None for task in tasks])
    trials: list[Trial | None] = []
    for chain, lane, task, view in zip(chains, lanes, tasks, views, strict=True):
        if task:
            chain.instructions.append(task.instruction("evaluation", chain.seed))
        trials.append(Trial(lane, chain.instructions[-1], task.max_steps, view[1]) if task and view else None)
    seconds = roll_out(stage.actor, trials, stage.execute, stage.lanes)
    for chain, trial in zip(chains, trials, strict=True):
        if trial:
            chain.steps += trial.steps
            chain.done += trial.success
    return seconds


def _median_ms(seconds: Sequence[float]) -> float:
    return float(np.median(seconds)) * 1000 if seconds else 0.0
