"""An environment of Gymnasium as one of Joinery: one task, whose meaning the recipe gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from core import DataError, did_you_mean
from core.environments import Environment, Observation, StepResult, Task
from core.episodes import Camera, StoreInfo
from plugins.environments.gymnasium.actions import ActionScaling
from plugins.environments.gymnasium.config import REWARD, TERMINATED, GymnasiumConfig
from plugins.environments.gymnasium.making import Expert, make, make_expert, versions_of
from plugins.environments.gymnasium.observations import (
    keys_of,
    number_of,
    numbers_of,
    one_for_each,
    picture_of,
)


class Gymnasium(Environment):
    """A registered environment with pictures; its only task is called as the id is.

    The recipe says when the task is done and what a score is, since Gymnasium has no words for it.
    An episode that the environment terminates or truncates before that is over without success.

    Raises DataError, one line with the key of the recipe, if the environment cannot be made, or if
    its spaces, its observations or its info do not fit the recipe. To see that, it begins an
    episode and makes a step.
    """

    def __init__(self, config: GymnasiumConfig) -> None:
        self._config, self._gym = config, make(config)
        spec, rate = self._gym.spec, config.fps or self._gym.metadata.get("render_fps")
        if rate is None:
            raise DataError(f"environment.fps: {config.id} does not say its rate; give it")
        if spec.max_episode_steps is None:
            raise DataError(f"environment.max_steps: {config.id} has no largest number; give one")
        self._actions = ActionScaling(config, self._gym.action_space, float(rate))
        self._expert: Expert | None = make_expert(config, self._gym)
        self.tasks = {
            spec.name: Task(
                spec.name,
                config.instructions,
                spec.max_episode_steps,
                config.held_out,
                has_success=bool(config.success),
            )
        }
        self.versions = versions_of(self._gym)
        self.reset(spec.name, 0)
        self.info = self._describe(float(rate))
        self.step(np.zeros(self.info.action.dim, np.float32))

    def reset(self, task: str, seed: int) -> None:
        """Begin the episode of a seed; raises DataError for an unknown task."""
        if task not in self.tasks:
            known = did_you_mean(task, [*self.tasks])
            raise DataError(f"{self._config.id} has no task '{task}'{known}")
        self._observed, self._facts = self._gym.reset(seed=seed)

    def is_done(self) -> bool | None:
        """Return whether the info of `reset` says that the task is done; None if it does not."""
        if self._config.success not in keys_of(self._facts):
            return None
        return self._succeeds(self._facts)

    def step(self, action: np.ndarray) -> StepResult:
        """Apply an action (A), whose numbers are as `scaling` has them."""
        taken = self._actions.to_environment(action)
        self._observed, reward, terminated, truncated, self._facts = self._gym.step(taken)
        outcome = {REWARD: reward, TERMINATED: terminated, **self._facts}
        score = self._config.score
        return StepResult(
            self._succeeds(outcome),
            bool(terminated or truncated),
            number_of(outcome, score, "environment.score") if score else None,
            {
                name: number_of(outcome, name, "environment.metrics")
                for name in self._config.metrics
            },
        )

    def observe(self) -> Observation:
        """Return pictures and proprioception; a camera that is rendered is drawn at every call."""
        images = {
            name: picture_of(self._gym, self._observed, key, f"environment.cameras.{name}")
            for name, key in self._config.cameras.items()
        }
        return Observation(images, np.concatenate([np.zeros(0, np.float32), *self._proprio()]))

    def expert(self) -> np.ndarray:
        """Return the expert's action (A) for the present state; DataError if there is none."""
        if self._expert is None:
            raise DataError(
                f"{self._config.id} has no expert; name one in environment.expert, or import "
                "demonstrations"
            )
        return self._actions.to_policy(self._expert())

    def close(self) -> None:
        """Close Gymnasium's environment, and its window or renderer with it."""
        self._gym.close()

    def _succeeds(self, outcome: Mapping[str, Any]) -> bool:
        if not self._config.success:
            return False
        value = number_of(outcome, self._config.success, "environment.success")
        threshold = self._config.threshold
        return bool(value) if threshold is None else value >= threshold

    def _proprio(self) -> list[np.ndarray]:
        return [numbers_of(self._observed, key) for key in self._config.proprio]

    def _describe(self, rate: float) -> StoreInfo:
        """Describe the present observation, and the actions."""
        images = self.observe().images
        names = [
            f"{key.rpartition('.')[2] or 'observation'}_{number}"
            for key, numbers in zip(self._config.proprio, self._proprio(), strict=True)
            for number in range(len(numbers))
        ]
        units = one_for_each(self._config.proprio_units, len(names), "environment.proprio_units")
        return StoreInfo(
            fps=rate,
            cameras={name: Camera(*image.shape[:2]) for name, image in images.items()},
            action=self._actions.convention,
            proprio=tuple(names),
            origin=f"Gymnasium's {self._config.id}",
            proprio_units=units,
        )
