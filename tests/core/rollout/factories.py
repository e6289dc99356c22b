"""Plans of the toy environment, and a function that runs one and returns all there is to check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from core.environments.environment import EVALUATION_SEEDS, Observation
from core.environments.workers import EnvironmentSpec, open_workers
from core.episodes.renaming import NewNames
from core.rollout.attempt import start_rollout
from core.rollout.plan import (
    BLANK,
    PlannedAttempt,
    PlannedChain,
    PlannedRollout,
    planned_rollout,
)
from core.rollout.queue import Queue
from core.rollout.results import STANDARD, Result, Timing
from core.rollout.runner import run_rollouts
from tests.toy_environment import Fault, ToyConfig, ToyEnvironment, toy_tasks
from tests.toy_policy import ScriptedActor

NUM_ROWS = 4
LONG_TIMEOUT = 60.0  # seconds: longer than any machine needs for a step
SHORT_TIMEOUT = 5.0  # seconds: for environments that hang
FIRST_SEED = EVALUATION_SEEDS


def attempts(episodes: int, condition: str = STANDARD) -> list[PlannedAttempt]:
    """Return planned attempts at each task of the toy, one for each of the first seeds."""
    return [
        PlannedAttempt(condition, task.name, seed, task.instruction("evaluation", seed))
        for seed in range(FIRST_SEED, FIRST_SEED + episodes)
        for task in toy_tasks().values()
    ]


ATTEMPTS = attempts(2)
CHAINS = [PlannedChain(FIRST_SEED + i) for i in range(3)]
MIXED = [*attempts(4), *attempts(1, BLANK), *CHAINS]


@dataclass
class Notes:
    """A recording that keeps all it is told."""

    observations: list[Observation] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)

    def add_observation(self, observation: Observation) -> None:
        self.observations.append(observation)

    def add_actions(self, actions: np.ndarray) -> None:
        self.actions.append(actions)


@dataclass
class Outcome:
    """The results in the order of the plan, and in the order in which their rollouts ended."""

    results: list[Result]
    finished: list[Result]
    timings: list[Timing]
    notes: dict[PlannedAttempt, Notes]

    @property
    def recordings(self) -> list[Notes | None]:
        """The recordings in the order of the plan; None for attempts without a recording."""
        return [self.notes.get(planned_rollout(result)) for result in self.results]

    def busy(self, num_rows: int) -> float:
        """Return the share of the policy's rows in which a rollout went on."""
        steps = sum(len(timing.inference_ms) for timing in self.timings)
        return sum(timing.busy_rows for timing in self.timings) / (num_rows * steps)


def run_plan(
    actor: ScriptedActor,
    plan: Sequence[PlannedRollout] = ATTEMPTS,
    *faults: Fault,
    num_rows: int = NUM_ROWS,
    replan_steps: int = 1,
    should_record: Callable[[PlannedAttempt], bool] = lambda _: False,
    timeout: float = LONG_TIMEOUT,
    cameras: Literal[1, 2] = 1,
    scored: bool = False,
    ends_after: int = 0,
    names: NewNames | None = None,
    replayable: bool = True,
) -> Outcome:
    spec = EnvironmentSpec(
        "toy", ToyEnvironment, ToyConfig(cameras, faults, scored=scored, ends_after=ends_after)
    )
    notes: dict[PlannedAttempt, Notes] = {}

    def record(planned: PlannedAttempt) -> Notes | None:
        return notes.setdefault(planned, Notes()) if should_record(planned) else None

    start = partial(
        start_rollout,
        tasks=toy_tasks(),
        replan_steps=replan_steps,
        record=record,
        visual=(),
        names=names or NewNames(),
        jerk=len,
    )
    with open_workers(spec, min(num_rows, len(plan)), timeout) as workers:
        queue = Queue(plan, toy_tasks())
        pairs = list(run_rollouts(actor, workers, num_rows, queue, start, replayable))
    results = {planned_rollout(result): result for result, _ in pairs}
    assert len(results) == len(pairs) == len(plan)
    return Outcome(
        [results[planned] for planned in plan],
        [result for result, _ in pairs],
        [timing for _, timing in pairs],
        notes,
    )
