"""A trained policy for one robot: it turns observations into chunks of actions."""

import numpy as np

from core.environments.environment import Observation
from core.episodes.episode import StoreInfo
from core.errors import DataError
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
        the first few actions before the next call. A policy that reads past actions is told the one
        applied last, as `observation.past_action`; before the first it is None.

        Raises DataError, with a line for each difference, if the observation is not as in the
        training data; PolicyError if an action is not finite. Nothing is returned then, and the
        history of the attempt is as before.
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
        reads_past = self._actor.policy.action_tokens.reads_past
        is_silent = isinstance(observation, Observation) and observation.past_action is None
        if reads_past and is_silent and int(state.step) > 0:
            raise DataError(
                "observation: past_action is None, and the policy reads what was executed before; "
                "give it the action applied last, or call reset() at the start of an episode"
            )
        chunks, state = self._actor.step([observation], [instruction], state)
        chunk: np.ndarray = chunks[0]
        return chunk, state
