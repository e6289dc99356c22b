"""A trained policy for one robot: it turns observations into chunks of actions."""

import numpy as np

from core.environments.environment import Observation
from core.episodes.episode import StoreInfo
from core.errors import DataError, did_you_mean
from core.policy.state import PolicyState
from core.rollout.actor import Actor


class LoadedPolicy:
    """A policy that acts for one robot.

    `act` keeps the history of the attempt in this object, and `reset` begins another attempt. A
    caller that keeps the history itself uses `initial_state` and `step` instead; these two change
    nothing in this object.

    info: the cameras, proprioception and features that an observation must hold, and what the
        numbers of an action mean.
    horizon: number of actions in a chunk (H).
    """

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._state = self.initial_state()

    @property
    def info(self) -> StoreInfo:
        """Info of the data on which the policy was trained."""
        return self._actor.info

    @property
    def horizon(self) -> int:
        """Number of actions in a chunk (H)."""
        return self._actor.horizon

    def reset(self, seed: int = 0) -> None:
        """Begin another attempt.

        seed: seed of the policy's random draws, if the policy draws any.
        """
        self._state = self.initial_state(seed)

    def act(self, observation: Observation, instruction: str) -> np.ndarray:
        """Return the next actions (H A) float32, in the units of `info.action`.

        Apply the first action and call `act` again. If the robot is faster than the policy, apply
        the first few actions before the next call.

        Raises DataError if the observation does not have the form of the training data.
        """
        chunk, self._state = self.step(observation, instruction, self._state)
        return chunk

    def initial_state(self, seed: int = 0) -> PolicyState:
        """Return the state before the first observation of an attempt."""
        return self._actor.reset(self._actor.start(1), {0: seed})

    def step(
        self, observation: Observation, instruction: str, state: PolicyState
    ) -> tuple[np.ndarray, PolicyState]:
        """Return the next actions (H A), as `act` does, and the next state."""
        self._check(observation)
        chunks, state = self._actor.step([observation], [instruction], state)
        chunk: np.ndarray = chunks[0]
        return chunk, state

    def _check(self, observation: Observation) -> None:
        """Raise DataError if a camera or the proprioception is missing or differs from training.

        The same error is raised if the proprioception is not finite.
        """
        names = list(observation.images)
        for name, camera in self.info.cameras.items():
            image = observation.images.get(name)
            expected = (camera.height, camera.width, 3)
            if image is None:
                raise DataError(f"observation: no camera '{name}'{did_you_mean(name, names)}")
            if image.shape != expected or image.dtype != np.uint8:
                raise DataError(
                    f"observation: camera '{name}' shows {image.dtype} {image.shape}; "
                    f"the policy was trained on uint8 {expected}"
                )
        count = len(self.info.proprio)
        if count and np.shape(observation.proprio) != (count,):
            raise DataError(
                f"observation: proprio has shape {np.shape(observation.proprio)}; the policy was "
                f"trained on ({count},): {', '.join(self.info.proprio)}"
            )
        if count and not np.isfinite(observation.proprio).all():
            raise DataError(f"observation: proprio is not finite: {observation.proprio}")
