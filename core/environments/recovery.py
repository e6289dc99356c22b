"""An environment that recovers from a crash: a fresh process repeats the calls made so far.

The functions in the first section run in the environment's process and must not need torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.environments import checked
from core.environments.checked import observe, step
from core.environments.environment import Environment, Observation, StepResult
from core.environments.observations import changes
from core.environments.workers import EnvironmentFailed, Worker

# --------------------------------------------------------------------- in the environment's process


def reset(environment: Environment, task: str, seed: int) -> None:
    """Begin an episode."""
    checked.reset(environment, task, seed)


def begin_chain(environment: Environment, seed: int) -> list[str]:
    """Begin a chain and return the names of its tasks."""
    return checked.begin_chain(environment, seed)


def continue_chain(environment: Environment, task: str) -> None:
    """Begin the next task of a chain in the scene as it is now."""
    checked.proceed(environment, task)


def apply_actions(environment: Environment, actions: np.ndarray) -> list[StepResult]:
    """Apply actions (n A) until the episode is over; return the result of each step made."""
    results: list[StepResult] = []
    for action in actions:
        results.append(step(environment, action))
        if results[-1].done:
            break
    return results


def call_and_observe(
    environment: Environment, function: Callable[..., Any], *arguments: Any
) -> tuple[Any, Observation]:
    """Call `function(environment, *arguments)`; return its result, and the observation after it."""
    result = function(environment, *arguments)
    return result, observe(environment)


# ---------------------------------------------------------------------- in the evaluation's process


@dataclass(frozen=True)
class EnvironmentCall:
    """A call to run in an environment's process: a function of this module and its arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class RecoveringEnvironment:
    """A worker's environment in one rollout; it is restored if its process dies, hangs or raises.

    The state of an environment depends on its task, seed and actions alone. So a fresh process can
    repeat all calls of the rollout and thus reach the lost state. An environment is restored at
    most once in a rollout, and only if it then shows what it showed before.

    replayable: whether the calls may be repeated; see `Environment`.
    """

    def __init__(self, worker: Worker, replayable: bool = True) -> None:
        self._worker, self._replayable = worker, replayable
        self._calls: list[EnvironmentCall] = []
        self._observation: Observation | None = None  # the newest one
        self._restarted = False

    def submit(self, call: EnvironmentCall) -> None:
        """Start a call, followed by an observation; `result` must come before the next `submit`."""
        self._calls.append(call)
        self._worker.submit(call_and_observe, call.function, *call.arguments)

    def result(self) -> tuple[Any, Observation]:
        """Wait for the call; return its result and the observation after it.

        Raises EnvironmentFailed, with the reason, if the environment failed and cannot be restored;
        the worker then has a fresh environment. Raises DataError if the environment raised
        DataError, or returned what it must not: a fresh process would do the same again.
        """
        try:
            result = self._result_or_restored()
        except EnvironmentFailed:
            self._worker.restart()
            raise
        self._observation = result[1]
        return result

    def _result_or_restored(self) -> tuple[Any, Observation]:
        try:
            return self._worker_result()
        except EnvironmentFailed as failure:
            if self._restarted:
                raise
            if not self._replayable:
                what = "the environment is not replayable, so its actions were not repeated"
                raise EnvironmentFailed(f"{failure}; {what}") from None
            self._repeat_calls(failure)
            return self._worker_result()

    def _repeat_calls(self, failure: EnvironmentFailed) -> None:
        """Repeat all earlier calls in a fresh process, and start the last call again."""
        self._restarted = True
        self._worker.restart()
        *earlier, last = self._calls
        # The calls are submitted one by one, so that the time limit applies to each single call.
        for call in earlier:
            self._worker.submit(call.function, *call.arguments)
            self._worker.result()
        if self._observation is not None:
            self._worker.submit(observe)
            if names := changes(self._observation, self._worker.result()):
                raise EnvironmentFailed(
                    f"{failure}; in a fresh process the same actions led to another "
                    f"{', '.join(names)}, so the attempt was not restored"
                )
        self._worker.submit(call_and_observe, last.function, *last.arguments)

    def _worker_result(self) -> tuple[Any, Observation]:
        result: tuple[Any, Observation] = self._worker.result()
        return result
