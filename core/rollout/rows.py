"""The rows of the policy's batch: their number is constant, and in each, attempts follow one
another.

All rows move in lockstep: one policy step for all, then every row's environment applies its
actions. Where that ends an attempt, the next one begins in its row at once, while the others
still work, so that the next policy step finds it there. Which attempt goes into which row is a
function of the plan and of the outcomes, not of how fast an environment answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from core.environments.environment import Observation
from core.environments.recovery import Lane, Move
from core.environments.workers import EnvironmentFailed, Worker
from core.episodes.episode import StoreInfo
from core.rollout.attempt import Ended, Rollout, Trial
from core.rollout.plan import Planned
from core.rollout.queue import Queue
from core.rollout.results import Timing

if TYPE_CHECKING:
    from core.rollout.actor import Actor


class Row:
    """An environment and the rollout that goes on in it.

    planned: what is being rolled out, or was last.
    trial: what the policy is to act in next; None while the environment works or nothing goes on.
    works: whether the environment owes an answer.
    """

    planned: Planned | None = None
    trial: Trial | None = None
    works: bool = False
    _lane: Lane
    _rollout: Rollout

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def begin(self, planned: Planned, rollout: Rollout) -> None:
        """Begin another rollout, whose first request is a move of the environment."""
        self.planned, self._rollout, self._lane = planned, rollout, Lane(self._worker)
        self._advance(partial(next, rollout))

    def act(self, chunk: np.ndarray) -> None:
        """Go on with the policy's chunk of actions (H A)."""
        self._advance(partial(self._rollout.send, chunk))

    def answer(self) -> Ended | None:
        """Wait for the environment and go on with its answer; return what came of it, once over."""
        try:
            answer = self._lane.answer()
        except EnvironmentFailed as failure:
            return self._advance(partial(self._rollout.throw, failure))
        return self._advance(partial(self._rollout.send, answer))

    def _advance(self, go_on: Callable[[], Move | Trial]) -> Ended | None:
        """Let the rollout go on to its next request."""
        self.trial, self.works = None, False
        try:
            request = go_on()
        except StopIteration as end:
            ended: Ended = end.value
            return ended
        if isinstance(request, Trial):
            self.trial = request
        else:
            move, arguments = request
            self._lane.ask(move, *arguments)
            self.works = True
        return None


def roll_out(
    actor: "Actor",
    workers: Sequence[Worker],
    lanes: int,
    queue: Queue,
    begin: Callable[[Planned], Rollout],
) -> Iterator[tuple[Ended, Timing]]:
    """Let the policy act in every row until the queue is empty; yield each result as it ends.

    workers: one for each row that is to be filled, at most `lanes`.
    lanes: rows of the policy's batch.
    begin: what is planned -> its rollout.
    With each result comes what the time since the one before went into. Raises DataError where an
    environment raised that.
    """
    rows, state, stopwatch = [Row(worker) for worker in workers], actor.start(lanes), Stopwatch()
    for row in rows:
        _begin_next(row, queue, begin)
    while True:
        while working := [row for row in rows if row.works]:
            for row in working:
                if (ended := row.answer()) is not None:
                    _begin_next(row, queue, begin)
                    yield ended, stopwatch.lap()
        trials = {number: row.trial for number, row in enumerate(rows) if row.trial is not None}
        if not trials:
            return
        if fresh := {number: trial.seed for number, trial in trials.items() if trial.steps == 0}:
            state = actor.reset(state, fresh)
        observations, instructions = _batch(actor, trials, lanes)
        with stopwatch.policy_step(busy_rows=len(trials)):
            chunks, state = actor.step(observations, instructions, state)
        for number in trials:
            rows[number].act(chunks[number])


def _begin_next(row: Row, queue: Queue, begin: Callable[[Planned], Rollout]) -> None:
    if (planned := queue.take(row.planned)) is not None:
        row.begin(planned, begin(planned))


def _batch(
    actor: "Actor",
    trials: Mapping[int, Trial],
    lanes: int,
) -> tuple[list[Observation], list[str]]:
    """What the policy sees and is told in every row; one without a trial sees nothing."""
    nothing = _nothing(actor.info)
    any_instruction = next(iter(trials.values())).instruction  # pads the batch no further
    filled = [trials.get(number) for number in range(lanes)]
    return (
        [trial.observation if trial else nothing for trial in filled],
        [trial.instruction if trial else any_instruction for trial in filled],
    )


def _nothing(info: StoreInfo) -> Observation:
    """Black images and zeros."""
    shapes = {name: (camera.height, camera.width, 3) for name, camera in info.cameras.items()}
    images = {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}
    features = {name: np.zeros(one.shape, one.dtype) for name, one in info.features.items()}
    return Observation(images, np.zeros(len(info.proprio), np.float32), features)


class Stopwatch:
    """Measures what the time between two results goes into."""

    def __init__(self) -> None:
        self._began, self._busy_rows = perf_counter(), 0
        self._inference_ms: list[float] = []

    @contextmanager
    def policy_step(self, busy_rows: int) -> Iterator[None]:
        """Time a step of the policy."""
        began = perf_counter()
        yield
        self._inference_ms.append(round(1000 * (perf_counter() - began), 3))
        self._busy_rows += busy_rows

    def lap(self) -> Timing:
        """Return what was measured since the last time, and begin anew."""
        now = perf_counter()
        timing = Timing(now - self._began, tuple(self._inference_ms), self._busy_rows)
        self._began, self._inference_ms, self._busy_rows = now, [], 0
        return timing
