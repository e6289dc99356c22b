"""Worlds in which a policy acts: what they show, what they ask for, and what core demands of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from core.episodes.episode import StoreInfo
from core.errors import DataError

Split = Literal["demonstration", "evaluation"]
EVALUATION_SEEDS = 1_000_000  # demonstrations use the seeds below, evaluations those from here on


@dataclass(frozen=True)
class Task:
    """Something a policy can be told to do.

    name: what demonstrations, results and the store call it.
    instructions: phrasings that demonstrations use.
    held_out: phrasings that only evaluation uses; where there are none, it uses `instructions`.
    max_steps: control steps after which an attempt has failed.
    tier: a group of tasks that results also average by, "easy" for example; "" for none.
    """

    name: str
    instructions: tuple[str, ...]
    max_steps: int
    held_out: tuple[str, ...] = ()
    tier: str = ""

    def instruction(self, split: Split, seed: int) -> str:
        """Return the phrasing of an episode: a function of its seed."""
        phrasings = self.held_out if split == "evaluation" and self.held_out else self.instructions
        return phrasings[seed % len(phrasings)]


@dataclass(frozen=True)
class Observation:
    """What an environment shows at one moment.

    images: {camera: (Y X C) uint8}, as `info.cameras` says.
    proprio: (P) float32, as `info.proprio` names it.
    features: {feature: shape and dtype as `info.features` says}.
    """

    images: Mapping[str, np.ndarray]
    proprio: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


class Environment(ABC):
    """A world to act in. Built as `build(config)`, in a process of its own; it must not need torch.

    info: cameras, features, proprioception, control rate, and what its actions mean; evaluation
        compares it with the policy's.
    tasks: what can be asked for, by name.
    versions: what a result depends on beside Joinery, {"mujoco": "3.3.0"} for example.

    The same task, seed and actions give the same episode, in any process. What only some worlds can
    do raises
    DataError in the others: chains of tasks, demonstrations.
    """

    info: StoreInfo
    tasks: Mapping[str, Task]
    versions: Mapping[str, str]

    @abstractmethod
    def reset(self, task: str, seed: int) -> None:
        """Arrange a new scene in which `task` can be done."""

    @abstractmethod
    def step(self, action: np.ndarray) -> bool:
        """Apply one action (A) in the units of `info.action`; return whether the task is done."""

    @abstractmethod
    def observe(self) -> Observation:
        """Render what the cameras and the proprioception show now."""

    def begin_chain(self, seed: int) -> Sequence[str]:  # noqa: ARG002 (this one has none)
        """Arrange the scene of a chain and return its tasks, to be done in turn by `proceed`;
        raises DataError.
        """
        raise DataError(f"{type(self).__name__} has no chains of tasks; leave out evaluate.chains")

    def proceed(self, task: str) -> None:
        """Ask for a task in the scene as it is; raises DataError."""
        raise DataError(
            f"{type(self).__name__} cannot go on with '{task}' in the same scene; evaluate single tasks"
        )

    def expert(self) -> np.ndarray:
        """Return the action (A) of a demonstrator: a function of the present state alone; raises
        DataError.
        """
        raise DataError(
            f"{type(self).__name__} has no expert that demonstrates its tasks; import demonstrations"
        )

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Free what the environment holds outside Python."""
