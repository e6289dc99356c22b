"""An environment that recovers from a crash: a fresh process repeats the calls made so far.

The functions in the first section run in the environment's process and must not need torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.environments.checked import observe, step
from core.environments.environment import Environment, Observation, StepResult
from core.environments.workers import EnvironmentFailed, Worker

# --------------------------------------------------------------------- in the environment's process


def reset(environment: Environment, task: str, seed: int) -> None:
    """Begin an episode."""
    environment.reset(task, seed)


def begin_chain(environment: Environment, seed: int) -> list[str]:
    """Begin a chain and return the names of its tasks."""
    return list(environment.begin_chain(seed))


def continue_chain(environment: Environment, task: str) -> None:
    """Begin the next task of a chain in the scene as it is now."""
    environment.proceed(task)


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
    most once in a rollout.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._calls: list[EnvironmentCall] = []
        self._restarted = False

    def submit(self, call: EnvironmentCall) -> None:
        """Start a call, followed by an observation; `result` must come before the next `submit`."""
        self._calls.append(call)
        self._worker.submit(call_and_observe, call.function, *call.arguments)

    def result(self) -> tuple[Any, Observation]:
        """Wait for the call; return its result and the observation after it.

        Raises EnvironmentFailed, with the reason, if the environment failed a second time; the
        worker then has a fresh environment. Raises DataError if the environment raised DataError.
        """
        try:
            try:
                return self._worker_result()
            except EnvironmentFailed:
                if self._restarted:
                    raise
                return self._repeat_calls()
        except EnvironmentFailed:
            self._worker.restart()
            raise

    def _repeat_calls(self) -> tuple[Any, Observation]:
        self._restarted = True
        self._worker.restart()
        *earlier, last = self._calls
        # The calls are submitted one by one, so that the time limit applies to each single call.
        for call in earlier:
            self._worker.submit(call.function, *call.arguments)
            self._worker.result()
        self._worker.submit(call_and_observe, last.function, *last.arguments)
        return self._worker_result()

    def _worker_result(self) -> tuple[Any, Observation]:
        result: tuple[Any, Observation] = self._worker.result()
        return result
