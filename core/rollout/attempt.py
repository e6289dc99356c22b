"""A rollout (attempt or chain) is a Python generator that `runner.py` resumes again and again.

A rollout yields what it needs next and receives the answer:

- For an `EnvironmentCall` it receives (result of the call, observation after the call). If the
  environment failed and could not be restored, EnvironmentFailed is raised in the rollout instead,
  or DataError if the environment raised it or returned what it must not.
- For an `Attempt` it receives the action chunk (H A) that the policy predicts from the attempt's
  last observation. If these are no actions that can be executed, PolicyError is raised instead.

An error that is raised in a rollout ends this rollout as failed, and no other.

At its end, a rollout returns its `Result`. In short, an attempt is:

    until the episode is over or there are no steps left:
        chunk = the policy's actions           `Actor.step`, called by `run_rollouts` in runner.py
        apply the first actions of the chunk   `apply_actions` in core/environments/recovery.py
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from core.environments.environment import Observation, StepResult, Task
from core.environments.recovery import (
    EnvironmentCall,
    apply_actions,
    begin_chain,
    continue_chain,
    reset,
)
from core.episodes.episode import VISUAL, StoreInfo
from core.episodes.renaming import NewNames, rename_keys
from core.errors import JoineryError
from core.rollout.plan import BLANK, BLANK_HISTORY, PlannedAttempt, PlannedChain, PlannedRollout
from core.rollout.results import ChainResult, EpisodeResult, Result
from core.rollout.scores import summarize


class Recording(Protocol):
    """Keeps what an attempt's policy sees and does; it is told in the order of time."""

    def add_observation(self, observation: Observation) -> None:
        """Add an observation from which the policy predicts a chunk, or the last observation."""

    def add_actions(self, actions: np.ndarray) -> None:
        """Add the actions (n A) that were applied since the newest observation."""


@dataclass
class Attempt:
    """The state of an attempt at a task; in a chain, every task is a separate attempt.

    seed: seed of the policy's random draws.
    max_steps: an attempt fails if its task is not done after this many control steps.
    names: the policy's names of the environment's cameras and features.
    blank: if None, the policy sees everything; if a collection of names, the policy sees black
        images, and zeros for the features with these names.
    blank_history: whether the policy forgets all earlier observations before each of its steps.
    recording: is told what the policy sees and does; None if nobody needs it.
    observation: the newest observation, as the policy sees it.
    success: whether the task is done.
    ended: whether the environment ended the episode without success, before `max_steps`.
    steps: number of control steps so far.
    actions: the actions (n A) that were executed, chunk by chunk.
    scores: the scores of the steps so far, of those that have one.
    metrics: {name: its values in the steps so far}.
    """

    instruction: str
    seed: int
    max_steps: int
    names: NewNames = field(default_factory=NewNames)
    blank: Collection[str] | None = None
    blank_history: bool = False
    recording: Recording | None = None
    observation: Observation = field(init=False)
    success: bool = False
    ended: bool = False
    steps: int = 0
    actions: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    def run(
        self, observation: Observation, replan_steps: int
    ) -> Generator["EnvironmentCall | Attempt", Any, None]:
        """Let the policy act until the episode is over, or `max_steps` control steps were made.

        observation: the observation of the scene in which the attempt begins.
        replan_steps: number of actions of each chunk that are executed before the next chunk.
        """
        self._observe(observation)
        while not (self.success or self.ended) and self.steps < self.max_steps:
            chunk: np.ndarray = yield self
            actions = chunk[: min(replan_steps, self.max_steps - self.steps)]
            call = EnvironmentCall(apply_actions, (actions,))
            results, observation = yield call
            # only these actions were applied: the episode may be over before the last one
            actions = actions[: len(results)]
            self.actions.append(actions)
            if not self.blank_history:
                observation = replace(observation, past_action=actions[-1])
            self._count(results)
            if self.recording:
                self.recording.add_actions(actions)
            self._observe(observation)

    def _count(self, results: Sequence[StepResult]) -> None:
        self.steps += len(results)
        self.scores += [result.score for result in results if result.score is not None]
        for name, value in (pair for result in results for pair in result.metrics.items()):
            self.metrics.setdefault(name, []).append(value)
        self.success = results[-1].success
        # a simulator's own time limit may be the same as the task's
        self.ended = results[-1].ended and self.steps < self.max_steps

    def _observe(self, observation: Observation) -> None:
        observation = _renamed(observation, self.names)
        if self.blank is not None:
            observation = _without_sight(observation, self.blank)
        self.observation = observation
        if self.recording:
            self.recording.add_observation(observation)


Rollout = Generator[EnvironmentCall | Attempt, Any, Result]


def start_rollout(
    planned: PlannedRollout,
    tasks: Mapping[str, Task],
    replan_steps: int,
    record: Callable[[PlannedAttempt], Recording | None],
    visual: Collection[str],
    names: NewNames,
    jerk: Callable[[np.ndarray], float | None],
) -> Rollout:
    """Return the Python generator that carries out a planned attempt or chain.

    replan_steps: number of actions of each chunk that are executed before the next chunk.
    record: begins the recording of an attempt; returns None for one that is not recorded.
    visual: features that are made blank together with the images; see `visual_features`.
    names: the policy's names of the environment's cameras and features.
    jerk: measures the executed actions (n A) of an attempt; None if they are too few.
    """
    if isinstance(planned, PlannedChain):
        return _roll_out_chain(planned, tasks, replan_steps, names)
    attempt = Attempt(
        planned.instruction,
        planned.policy_seed,
        tasks[planned.task].max_steps,
        names,
        blank=visual if planned.condition == BLANK else None,
        blank_history=planned.condition == BLANK_HISTORY,
        recording=record(planned),
    )
    return _roll_out_attempt(planned, attempt, replan_steps, jerk)


def _roll_out_attempt(
    planned: PlannedAttempt,
    attempt: Attempt,
    replan_steps: int,
    jerk: Callable[[np.ndarray], float | None],
) -> Rollout:
    failure: str | None = None
    try:
        _, observation = yield EnvironmentCall(reset, (planned.task, planned.seed))
        yield from attempt.run(observation, replan_steps)
    except JoineryError as error:
        failure = " ".join(str(error).split())
    scores = summarize(attempt.scores)
    return EpisodeResult(
        condition=planned.condition,
        task=planned.task,
        seed=planned.seed,
        instruction=planned.instruction,
        success=attempt.success,
        steps=attempt.steps,
        failure=failure,
        ended=attempt.ended,
        jerk=jerk(np.concatenate(attempt.actions)) if attempt.actions else None,
        score_best=scores.get("best"),
        score_mean=scores.get("mean"),
        score_sum=scores.get("sum"),
        metrics={name: summarize(values) for name, values in attempt.metrics.items()},
    )


def _roll_out_chain(
    planned: PlannedChain, tasks: Mapping[str, Task], replan_steps: int, names: NewNames
) -> Rollout:
    """Attempt the tasks of a chain in one scene until one fails.

    The policy's memory is emptied before each task, as in the CALVIN benchmark.
    """
    chain: list[str] = []
    attempts: list[Attempt] = []
    failure: str | None = None
    try:
        chain, _ = yield EnvironmentCall(begin_chain, (planned.seed,))
        for position, name in enumerate(chain):
            instruction = tasks[name].instruction("evaluation", planned.seed)
            policy_seed = planned.policy_seed(position, name)
            attempts.append(Attempt(instruction, policy_seed, tasks[name].max_steps, names))
            _, observation = yield EnvironmentCall(continue_chain, (name,))
            yield from attempts[-1].run(observation, replan_steps)
            if not attempts[-1].success:
                break
    except JoineryError as error:
        failure = " ".join(str(error).split())
    return ChainResult(
        seed=planned.seed,
        tasks=tuple(chain),
        instructions=tuple(attempt.instruction for attempt in attempts),
        done=sum(attempt.success for attempt in attempts),
        steps=sum(attempt.steps for attempt in attempts),
        failure=failure,
    )


def visual_features(info: StoreInfo) -> list[str]:
    """Return the features that show the scene: colour images, depth and point clouds."""
    return [name for name, feature in info.features.items() if feature.meaning in VISUAL]


def _renamed(observation: Observation, names: NewNames) -> Observation:
    if not (names.cameras or names.features):
        return observation
    return replace(
        observation,
        images=rename_keys(observation.images, names.cameras),
        features=rename_keys(observation.features, names.features),
    )


def _without_sight(observation: Observation, visual: Collection[str]) -> Observation:
    """Return the observation with black images and zeros for visual features."""
    images = {name: np.zeros_like(image) for name, image in observation.images.items()}
    features = dict(observation.features)
    for name in visual:
        if name in features:  # if a feature is missing, the actor reports it
            features[name] = np.zeros_like(features[name])
    return replace(observation, images=images, features=features)
