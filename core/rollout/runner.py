"""Runs rollouts: after one policy step for all rollouts, each environment applies its actions.

Every row of the policy's batch has a separate environment. The number of rows is constant. When
the rollout in a row ends, the next rollout begins in that row at once, and takes part in the next
policy step together with the other rows. Which rollout goes into which row depends on the plan and
the results, and not on how fast an environment answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from core.environments.environment import Observation
from core.environments.recovery import EnvironmentCall, RecoveringEnvironment
from core.environments.workers import EnvironmentFailed, Worker
from core.episodes.episode import StoreInfo
from core.errors import DataError, PolicyError
from core.rollout.attempt import Attempt, Rollout
from core.rollout.plan import PlannedRollout
from core.rollout.queue import Queue
from core.rollout.results import Result, Timing

if TYPE_CHECKING:
    from core.rollout.actor import Actor


def run_rollouts(
    actor: "Actor",
    workers: Sequence[Worker],
    num_rows: int,
    queue: Queue,
    start: Callable[[PlannedRollout], Rollout],
    replayable: bool = True,
) -> Iterator[tuple[Result, Timing]]:
    """Run all rollouts of the queue; yield each result, with its timing, when its rollout ends.

    workers: the processes of the environments, one for each row in use; at most `num_rows`.
    num_rows: number of rows of the policy's batch.
    start: returns the Python generator that carries out a planned rollout.
    replayable: whether an environment that failed is restored; see `Environment`.

    The timing of a rollout covers the time since the previous rollout ended. What goes wrong in one
    rollout, in its environment or in its row of the policy, ends this rollout as failed, and
    changes no other. An error of the policy's own code is raised.
    """
    rows = [Row(worker, replayable) for worker in workers]
    state, stopwatch = actor.start(num_rows), Stopwatch()
    for row in rows:
        row.begin_next(queue, start)
    while True:
        while waiting := [row for row in rows if row.waits_for_environment]:
            for row in waiting:
                if (result := row.receive()) is not None:
                    row.begin_next(queue, start)
                    yield result, stopwatch.lap()
        attempts = {i: row.attempt for i, row in enumerate(rows) if row.attempt is not None}
        if not attempts:
            return
        if seeds := {i: attempt.seed for i, attempt in attempts.items() if attempt.steps == 0}:
            state = actor.reset(state, seeds)
        if forgetful := [i for i, attempt in attempts.items() if attempt.blank_history]:
            state = actor.forget(state, forgetful)
        observations, instructions = _policy_inputs(actor.info, attempts, num_rows)
        with stopwatch.policy_step(busy_rows=len(attempts)):
            chunks, faults, state = actor.step_rows(observations, instructions, state)
        for i in attempts:
            if (result := rows[i].act(chunks[i], faults.get(i))) is not None:
                rows[i].begin_next(queue, start)
                yield result, stopwatch.lap()


class Row:
    """A row of the policy's batch: an environment, and the rollout that runs in it.

    planned: the rollout that runs now; in an empty row, the rollout that ended last.
    attempt: the attempt in which the policy acts next; None while the environment is busy, or if
        the row is empty.
    waits_for_environment: whether the environment is busy.
    """

    planned: PlannedRollout | None = None
    attempt: Attempt | None = None
    waits_for_environment: bool = False
    _environment: RecoveringEnvironment
    _rollout: Rollout

    def __init__(self, worker: Worker, replayable: bool) -> None:
        self._worker, self._replayable = worker, replayable

    def begin_next(self, queue: Queue, start: Callable[[PlannedRollout], Rollout]) -> None:
        """Begin the next rollout of the queue, if there is one."""
        if (planned := queue.pop(self.planned)) is None:
            return
        self.planned, self._rollout = planned, start(planned)
        self._environment = RecoveringEnvironment(self._worker, self._replayable)
        self._advance(partial(next, self._rollout))  # a rollout begins with an EnvironmentCall

    def act(self, chunk: np.ndarray, fault: str | None) -> Result | None:
        """Continue the rollout with the policy's action chunk (H A); return its result at its end.

        fault: why the chunk must not be executed, which ends the rollout; None if it may be.
        """
        if fault is not None:
            return self._advance(partial(self._rollout.throw, PolicyError(fault)))
        return self._advance(partial(self._rollout.send, chunk))

    def receive(self) -> Result | None:
        """Wait for the environment and continue the rollout; return its result if it has ended."""
        try:
            result = self._environment.result()
        except (EnvironmentFailed, DataError) as failure:
            return self._advance(partial(self._rollout.throw, failure))
        return self._advance(partial(self._rollout.send, result))

    def _advance(self, resume: Callable[[], EnvironmentCall | Attempt]) -> Result | None:
        """Resume the rollout until it needs the environment or the policy, or until it ends."""
        self.attempt, self.waits_for_environment = None, False
        try:
            request = resume()
        except StopIteration as end:
            result: Result = end.value
            return result
        if isinstance(request, Attempt):
            self.attempt = request
        else:
            self._environment.submit(request)
            self.waits_for_environment = True
        return None


def _policy_inputs(
    info: StoreInfo, attempts: Mapping[int, Attempt], num_rows: int
) -> tuple[list[Observation], list[str]]:
    """Return every row's observation and instruction; without an attempt, a row sees zeros."""
    blank = Observation(
        {
            name: np.zeros((camera.height, camera.width, 3), np.uint8)
            for name, camera in info.cameras.items()
        },
        np.zeros(len(info.proprio), np.float32),
        {name: np.zeros(feature.shape, feature.dtype) for name, feature in info.features.items()},
    )
    # A row without an attempt still needs an instruction. It gets the instruction of another row,
    # because a longer one could make the batch need more padding.
    filler = next(iter(attempts.values())).instruction
    rows = [attempts.get(i) for i in range(num_rows)]
    return (
        [attempt.observation if attempt else blank for attempt in rows],
        [attempt.instruction if attempt else filler for attempt in rows],
    )


class Stopwatch:
    """Measures the time between two results, and the policy steps in it."""

    def __init__(self) -> None:
        self._started, self._busy_rows = perf_counter(), 0
        self._inference_ms: list[float] = []

    @contextmanager
    def policy_step(self, busy_rows: int) -> Iterator[None]:
        """Time one step of the policy."""
        started = perf_counter()
        yield
        self._inference_ms.append(round(1000 * (perf_counter() - started), 3))
        self._busy_rows += busy_rows

    def lap(self) -> Timing:
        """Return what was measured since the last lap, and start the next lap."""
        now = perf_counter()
        timing = Timing(now - self._started, tuple(self._inference_ms), self._busy_rows)
        self._started, self._inference_ms, self._busy_rows = now, [], 0
        return timing
