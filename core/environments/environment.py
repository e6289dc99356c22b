"""The contract of environments: tasks, observations, and the methods that a plugin implements."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from core.episodes.episode import StoreInfo
from core.episodes.seeds import EVALUATION_SEEDS as EVALUATION_SEEDS
from core.errors import DataError

Split = Literal["demonstration", "evaluation"]


@dataclass(frozen=True)
class StepResult:
    """What a step has come to; `Environment.step` may return it instead of a bool.

    success: whether the task is done.
    ended: whether the episode is over without success: the robot fell, or the simulator's own time
        is up. No step is made after it, and the attempt counts as failed.
    score: a reward or another measure of how good the present state is, higher is better: the
        reward of this step in Gymnasium, the covered share of the target in PushT. None if the
        environment measures nothing; otherwise finite.
    metrics: {name: finite number}, what else is to be reported of this step.
    """

    success: bool = False
    ended: bool = False
    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether this step is the last one of the episode."""
        return self.success or self.ended

    def __bool__(self) -> bool:
        """Raise TypeError: `if environment.step(action)` would take every step for a success."""
        raise TypeError("a StepResult is neither true nor false; read its success or its done")


@dataclass(frozen=True)
class Task:
    """A task that a policy can be asked to do.

    name: the task's name in demonstrations, results and stores.
    instructions: the phrasings that demonstrations use.
    max_steps: number of control steps after which an unfinished attempt counts as failed.
    held_out: phrasings for evaluation alone; if empty, evaluation uses `instructions`.
    tier: name of the task's group, "easy" for example; "" for no group. Results report the mean
        success rate of each group.
    by_default: whether the task is among those of a recipe or a command that names no tasks.
    has_success: whether the task can be done. If not, as in walking, its scores are what counts,
        and a demonstration is good if it lasts `max_steps`.
    """

    name: str
    instructions: tuple[str, ...]
    max_steps: int
    held_out: tuple[str, ...] = ()
    tier: str = ""
    by_default: bool = True
    has_success: bool = True

    def instruction(self, split: Split, seed: int) -> str:
        """Return the instruction of an episode; it depends on the split and the seed alone."""
        phrasings = self.held_out if split == "evaluation" and self.held_out else self.instructions
        return phrasings[seed % len(phrasings)]

    def is_demonstrated(self, last: StepResult) -> bool:
        """Whether an episode that ended with this step, or after `max_steps`, shows the task."""
        return last.success or not (self.has_success or last.ended)


def default_tasks(tasks: Mapping[str, Task]) -> list[str]:
    """Return the names of the tasks that a recipe or a command has if it names none."""
    return [name for name, task in tasks.items() if task.by_default]


@dataclass(frozen=True)
class Observation:
    """What the sensors of an environment measure at one moment.

    images: {camera: (Y X C) uint8}, one image for each camera in `info.cameras`.
    proprio: (P) float32, in the order of `info.proprio`.
    features: {feature: array}, of the shapes and dtypes in `info.features`.
    past_action: (A), the action that was executed just before, in the units of the actions that the
        policy returns; None at the start of an episode. Whoever lets a policy act sets it, not the
        environment, and only policies whose action tokens read past actions need it.
    """

    images: Mapping[str, np.ndarray]
    proprio: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    past_action: np.ndarray | None = None


class Environment(ABC):
    """An environment in which a policy acts, built as `build(config)` in a separate process.

    info: cameras, features, proprioception, control rate and the meaning of actions; an evaluation
        checks that they fit the data that the policy was trained on.
    tasks: {name: task}, all tasks that can be attempted.
    versions: {library: version} of the libraries, except Joinery, on which results depend:
        {"mujoco": "3.3.0"} for example.
    replayable: whether a fresh process may repeat the actions of an attempt whose process died,
        hung or raised. A robot must not be driven through its former actions without looking, so
        its environment sets False: the attempt then ends as failed.

    The same task, seed and actions must give the same episode in any process, and an environment
    must not need torch. Chains of tasks and an expert are optional: the methods for chains and for
    the expert raise DataError unless an environment overrides them.
    """

    info: StoreInfo
    tasks: Mapping[str, Task]
    versions: Mapping[str, str]
    replayable: bool = True

    @abstractmethod
    def reset(self, task: str, seed: int) -> None:
        """Set up the scene that belongs to (task, seed), in which the task must be possible.

        Raises DataError for a task that only a chain reaches, so that no episode begins with it.
        """

    @abstractmethod
    def step(self, action: np.ndarray) -> bool | StepResult:
        """Apply an action (A) in the units of `info.action`; return whether the task is done.

        An environment with a reward, or with an end that is no success, returns a StepResult.
        """

    @abstractmethod
    def observe(self) -> Observation:
        """Return the current observation, without changing the environment's state."""

    def is_done(self) -> bool | None:
        """Return whether the task is done in the present state, before any step; None if unknown.

        It is asked after `reset` and `proceed`: a task that is done before the first step is no
        success of the policy, so the attempt counts as failed, and the reason is named.
        """
        return None

    def begin_chain(self, seed: int) -> Sequence[str]:  # noqa: ARG002 (used by overrides)
        """Set up the scene of a chain and return its tasks' names; `proceed` begins each task.

        Raises DataError if the environment has no chains.
        """
        raise DataError(f"{type(self).__name__} has no chains of tasks; leave out evaluate.chains")

    def proceed(self, task: str) -> None:
        """Begin the next task of a chain in the scene as it is now.

        Raises DataError if the environment has no chains.
        """
        raise DataError(
            f"{type(self).__name__} cannot go on with '{task}' in the same scene; "
            "evaluate single tasks"
        )

    def expert(self) -> np.ndarray:
        """Return the expert's action (A), which depends on the present state alone.

        Raises DataError if the environment has no expert.
        """
        raise DataError(
            f"{type(self).__name__} has no expert that demonstrates its tasks; "
            "import demonstrations"
        )

    def close(self) -> None:  # noqa: B027 (optional to override)
        """Free what the environment holds outside Python, a renderer for example."""
