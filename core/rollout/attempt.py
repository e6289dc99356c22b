"""What goes on in a row: an attempt or chain asks its environment to move and the policy to act.

A rollout is a generator of requests. For a move it is sent what the environment returned and what
is observed then; where the environment is given up, EnvironmentFailed is raised in it instead. For
a `Trial` it is sent the policy's chunk (H A) for what the trial observed last. It returns what came
of it.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.environments.environment import Observation, Task
from core.environments.recovery import Move, act, begin_chain, proceed, reset
from core.environments.workers import EnvironmentFailed
from core.episodes.episode import VISUAL, StoreInfo
from core.rollout.plan import BLANK, Attempt, Chain, Planned
from core.rollout.results import ChainResult, EpisodeResult, Result


@dataclass
class Trial:
    """One try at one task, from the policy's first look to its last.

    seed: of the policy's random draws.
    max_steps: control steps after which it is over.
    blank: features that are zero where the policy sees black images; None where it sees all.
    records: whether frames and commands are kept.
    observation: what the policy sees now.
    frames: all that the policy saw, and the end.
    commands: the last action applied before each frame, for the first frame the first action (A).
    """

    instruction: str
    seed: int
    max_steps: int
    blank: Collection[str] | None = None
    records: bool = False
    observation: Observation = field(init=False)
    success: bool = False
    steps: int = 0
    frames: list[Observation] = field(default_factory=list)
    commands: list[np.ndarray] = field(default_factory=list)

    def run(self, observation: Observation, execute: int) -> Generator["Move | Trial", Any, None]:
        """Let the policy act, `execute` actions of each chunk, until success or `max_steps`."""
        self._observe(observation)
        while not self.success and self.steps < self.max_steps:
            chunk: np.ndarray = yield self
            actions = chunk[: min(execute, self.max_steps - self.steps)]
            if self.records:
                self.commands += [actions[-1]] if self.commands else [actions[0], actions[-1]]
            (self.success, count), observation = yield act, (actions,)
            self.steps += count
            self._observe(observation)

    def _observe(self, observation: Observation) -> None:
        self.observation = observation if self.blank is None else _blanked(observation, self.blank)
        if self.records:
            self.frames.append(self.observation)


@dataclass(frozen=True)
class Ended:
    """What came of a rollout; trial: what was recorded of an attempt, None where nothing was."""

    result: Result
    trial: Trial | None = None


Rollout = Generator[Move | Trial, Any, Ended]


def begin(
    planned: Planned,
    tasks: Mapping[str, Task],
    execute: int,
    records: Callable[[Attempt], bool],
    visual: Collection[str],
) -> Rollout:
    """Return the rollout of what is planned.

    execute: actions of each chunk that are executed before the policy looks again.
    records: whether an attempt's frames and commands are kept.
    visual: features that show the scene, as images do, and are blank where those are.
    """
    if isinstance(planned, Chain):
        return _try_chain(planned, tasks, execute)
    blank = visual if planned.condition == BLANK else None
    seed, steps = planned.policy_seed, tasks[planned.task].max_steps
    trial = Trial(planned.instruction, seed, steps, blank, records(planned))
    return _try_attempt(planned, trial, execute)


def _try_attempt(attempt: Attempt, trial: Trial, execute: int) -> Rollout:
    failure: str | None = None
    try:
        _, observation = yield reset, (attempt.task, attempt.seed)
        yield from trial.run(observation, execute)
    except EnvironmentFailed as error:
        failure = str(error)
    result = EpisodeResult(
        condition=attempt.condition,
        task=attempt.task,
        seed=attempt.seed,
        instruction=attempt.instruction,
        success=trial.success,
        steps=trial.steps,
        failure=failure,
    )
    return Ended(result, trial if trial.records else None)


def _try_chain(chain: Chain, tasks: Mapping[str, Task], execute: int) -> Rollout:
    """Try task after task in one scene until one fails; the policy forgets between, as in CALVIN."""
    names: list[str] = []
    trials: list[Trial] = []
    failure: str | None = None
    try:
        names, _ = yield begin_chain, (chain.seed,)
        for leg, name in enumerate(names):
            instruction = tasks[name].instruction("evaluation", chain.seed)
            trials.append(Trial(instruction, chain.policy_seed(leg, name), tasks[name].max_steps))
            _, observation = yield proceed, (name,)
            yield from trials[-1].run(observation, execute)
            if not trials[-1].success:
                break
    except EnvironmentFailed as error:
        failure = str(error)
    result = ChainResult(
        seed=chain.seed,
        tasks=tuple(names),
        instructions=tuple(trial.instruction for trial in trials),
        done=sum(trial.success for trial in trials),
        steps=sum(trial.steps for trial in trials),
        failure=failure,
    )
    return Ended(result)


def visual_features(info: StoreInfo) -> list[str]:
    """Return the features that show the scene: colour images, depth and point clouds."""
    return [name for name, feature in info.features.items() if feature.meaning in VISUAL]


def _blanked(observation: Observation, visual: Collection[str]) -> Observation:
    """What is left without eyes: proprioception, and features that do not show the scene."""
    images = {name: np.zeros_like(image) for name, image in observation.images.items()}
    known = [
        name for name in visual if name in observation.features
    ]  # the actor says what is missing
    hidden = {name: np.zeros_like(observation.features[name]) for name in known}
    return Observation(images, observation.proprio, {**observation.features, **hidden})
