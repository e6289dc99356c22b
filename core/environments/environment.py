"""The contract of environments: tasks, observations, and the methods that a plugin implements."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from core.episodes.episode import StoreInfo
from core.errors import DataError

Split = Literal["demonstration", "evaluation"]
# Evaluations use seeds from this one on, and demonstrations lower seeds, so they share no scene.
EVALUATION_SEEDS = 1_000_000


@dataclass(frozen=True)
class Task:
    """A task that a policy can be asked to do.

    name: its name in demonstrations, results and stores.
    instructions: the phrasings that demonstrations use.
    max_steps: control steps after which an attempt has failed.
    held_out: phrasings for evaluation alone; if empty, evaluation uses `instructions`.
    tier: name of the task's group, "easy" for example; "" for none. Results report a mean for each
        group.
    """

    name: str
    instructions: tuple[str, ...]
    max_steps: int
    held_out: tuple[str, ...] = ()
    tier: str = ""

    def instruction(self, split: Split, seed: int) -> str:
        """Return the instruction of an episode; it depends on the seed alone."""
        phrasings = self.held_out if split == "evaluation" and self.held_out else self.instructions
        return phrasings[seed % len(phrasings)]


@dataclass(frozen=True)
class Observation:
    """What the sensors of an environment measure at one moment.

    images: {camera: (Y X C) uint8}, one for each of `info.cameras`.
    proprio: (P) float32, in the order of `info.proprio`.
    features: {feature: array}, of the shapes and dtypes in `info.features`.
    """

    images: Mapping[str, np.ndarray]
    proprio: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


class Environment(ABC):
    """An environment to act in, built as `build(config)` in a process of its own.

    info: cameras, features, proprioception, control rate and the meaning of actions; an evaluation
        checks that they fit the data that the policy was trained on.
    tasks: {name: task}, all tasks that can be attempted.
    versions: {library: version} of the libraries apart from Joinery that results depend on,
        {"mujoco": "3.3.0"} for example.

    The same task, seed and actions must give the same episode in any process, and an environment
    must not need torch. Chains of tasks and an expert are optional: the methods for chains and for
    the expert raise DataError unless an environment overrides them.
    """

    info: StoreInfo
    tasks: Mapping[str, Task]
    versions: Mapping[str, str]

    @abstractmethod
    def reset(self, task: str, seed: int) -> None:
        """Set up the scene that belongs to (task, seed); the task can be done in it."""

    @abstractmethod
    def step(self, action: np.ndarray) -> bool:
        """Apply an action (A) in the units of `info.action`; return whether the task is done."""

    @abstractmethod
    def observe(self) -> Observation:
        """Return the current observation; the state does not change."""

    def begin_chain(self, seed: int) -> Sequence[str]:  # noqa: ARG002 (used by overrides)
        """Set up the scene of a chain of tasks and return their names; `proceed` begins each.

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
