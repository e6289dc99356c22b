"""An episode's moves in its environment, which another process repeats where the first is lost.

What runs in a lane's process needs no torch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from core.environments.environment import Environment, Observation
from core.environments.workers import EnvironmentFailed, Worker

Move = tuple[Callable[..., Any], tuple[Any, ...]]


# ------------------------------------------------------------------------------ in a lane's process


def reset(environment: Environment, task: str, seed: int) -> None:
    """Begin an episode."""
    environment.reset(task, seed)


def begin_chain(environment: Environment, seed: int) -> list[str]:
    """Begin a chain and return its tasks."""
    return list(environment.begin_chain(seed))


def proceed(environment: Environment, task: str) -> None:
    """Go on with the next task of a chain."""
    environment.proceed(task)


def act(environment: Environment, actions: np.ndarray) -> tuple[bool, int]:
    """Apply actions (n A) until the task is done; return whether it is, and how many were applied."""
    for count, action in enumerate(actions, 1):
        if environment.step(action):
            return True, count
    return False, len(actions)


def look(
    environment: Environment, move: Callable[..., Any], *arguments: Any
) -> tuple[Any, Observation]:
    """Make a move, and return what it returned and what is seen then."""
    result = move(environment, *arguments)
    return result, environment.observe()


# -------------------------------------------------------------------------------- in the evaluation


class Lane:
    """A worker's environment during one episode, brought back to where it was when its process
    dies, hangs or raises.

    An environment is a function of its task, its seed and its actions: a fresh process that repeats
    the moves so far stands where the lost one stood. That is tried once per episode.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._moves: list[Move] = []
        self._restarted = False

    def ask(self, move: Callable[..., Any], *arguments: Any) -> None:
        """Let the environment make a move and observe; `answer` must be had before the next one."""
        self._moves.append((move, arguments))
        self._worker.submit(look, move, *arguments)

    def answer(self) -> tuple[Any, Observation]:
        """Return what the move returned and what is seen then.

        Raises EnvironmentFailed, with the reason, where the episode is given up; a fresh
        environment then waits for the next one. Raises DataError where the environment raised that.
        """
        try:
            try:
                return self._result()
            except EnvironmentFailed:
                if self._restarted:
                    raise
                return self._repeat()
        except EnvironmentFailed:
            self._worker.restart()
            raise

    def _repeat(self) -> tuple[Any, Observation]:
        self._restarted = True
        self._worker.restart()
        *before, (move, arguments) = self._moves
        for (
            earlier,
            its_arguments,
        ) in before:  # one by one: each has the time that it had the first time
            self._worker.submit(earlier, *its_arguments)
            self._worker.result()
        self._worker.submit(look, move, *arguments)
        return self._result()

    def _result(self) -> tuple[Any, Observation]:
        result: tuple[Any, Observation] = self._worker.result()
        return result
