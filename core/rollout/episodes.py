"""Rolling out: many environments in lockstep, one policy step for all of them at once.

A wave fills a batch of constant size: whatever a lane's fate, its row stays, so that a policy's numbers depend on the
wave's attempts alone. What runs in a lane's process needs no torch.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from core.data.contracts import VISUAL, StoreInfo
from core.rollout.contracts import Environment, Observation
from core.rollout.workers import EnvironmentFailed, Worker

if TYPE_CHECKING:  # a lane's process imports this module, and must not wait for torch
    from core.rollout.actor import Actor

Move = tuple[Callable[..., Any], tuple[Any, ...]]


# ---------------------------------------------------------------------------------------------- in a lane's process


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


def look(environment: Environment, move: Callable[..., Any], *arguments: Any) -> tuple[Any, Observation]:
    """Make a move, and return what it returned and what is seen then."""
    result = move(environment, *arguments)
    return result, environment.observe()


# ---------------------------------------------------------------------------------------------- in the evaluation


class Lane:
    """A worker's environment during one episode, brought back to where it was when its process dies, hangs or raises.

    An environment is a function of its task, its seed and its actions: a fresh process that repeats the moves so far
    stands where the lost one stood. That is tried once per episode; `failure` then says why the episode was given up.
    """

    def __init__(self, worker: Worker) -> None:
        self.failure: str | None = None
        self._worker = worker
        self._moves: list[Move] = []
        self._restarted = False

    def ask(self, move: Callable[..., Any], *arguments: Any) -> None:
        """Let the environment make a move and observe; `answer` must be had before the next one."""
        self._moves.append((move, arguments))
        self._worker.submit(look, move, *arguments)

    def answer(self) -> tuple[Any, Observation] | None:
        """Return what the move returned and what is seen then; None: the episode is given up."""
        try:
            try:
                return self._result()
            except EnvironmentFailed:
                if self._restarted:
                    raise
                return self._repeat()
        except EnvironmentFailed as error:
            self.failure = str(error)
            self._worker.restart()
            return None

    def _repeat(self) -> tuple[Any, Observation]:
        self._restarted = True
        self._worker.restart()
        *before, (move, arguments) = self._moves
        for earlier, its_arguments in before:  # one by one: each has the time that it had the first time
            self._worker.submit(earlier, *its_arguments)
            self._worker.result()
        self._worker.submit(look, move, *arguments)
        return self._result()

    def _result(self) -> tuple[Any, Observation]:
        result: tuple[Any, Observation] = self._worker.result()
        return result


@dataclass
class Trial:
    """One attempt at one task, from the moment at which the policy is told it.

    seen: what the policy last saw; frames: all that it saw, and the end, where `records`.
    commands: the last action applied before each frame, for the first frame the first action (A).
    visual: features that show the scene, as images do; with `blank`, both are zero.
    """

    lane: Lane
    instruction: str
    max_steps: int
    seen: Observation
    blank: bool = False
    records: bool = False
    success: bool = False
    steps: int = 0
    frames: list[Observation] = field(default_factory=list)
    commands: list[np.ndarray] = field(default_factory=list)
    visual: Collection[str] = ()

    def __post_init__(self) -> None:
        self._see(self.seen)

    @property
    def over(self) -> bool:
        """Whether the task is done, the time is up, or the environment is lost."""
        return self.success or self.steps >= self.max_steps or self.lane.failure is not None

    def begin(self, chunk: np.ndarray) -> None:
        """Have the next actions (n A) of a chunk applied."""
        actions = chunk[: self.max_steps - self.steps]
        if self.records:
            self.commands += [actions[0], actions[-1]] if not self.commands else [actions[-1]]
        self.lane.ask(act, actions)

    def end(self) -> None:
        """See what came of them."""
        if (answer := self.lane.answer()) is not None:
            (self.success, count), seen = answer
            self.steps += count
            self._see(seen)

    def _see(self, seen: Observation) -> None:
        self.seen = _blanked(seen, self.visual) if self.blank else seen
        if self.records:
            self.frames.append(self.seen)


def roll_out(actor: "Actor", trials: Sequence[Trial | None], execute: int, rows: int) -> list[float]:
    """Let the policy act until every trial is over; return the seconds of each of its steps.

    trials: None is a lane without one. execute: actions of each chunk that are executed before the policy looks again.
    rows: size of the policy's batch; those without a trial see nothing.
    """
    nothing, seconds, state = _nothing(actor), [], None
    filled = [*trials, *[None] * (rows - len(trials))]
    spare = next((trial.instruction for trial in trials if trial), "")
    instructions = [trial.instruction if trial else spare for trial in filled]
    while going := [(row, trial) for row, trial in enumerate(trials) if trial and not trial.over]:
        began = perf_counter()
        chunks, state = actor.step([trial.seen if trial else nothing for trial in filled], instructions, state)
        seconds.append(perf_counter() - began)
        for row, trial in going:
            trial.begin(chunks[row, :execute])
        for _, trial in going:
            trial.end()
    return seconds


def start(lanes: Sequence[Lane], moves: Sequence[Move | None]) -> list[tuple[Any, Observation] | None]:
    """Let each lane make its own move, all at once; None for those that have none or are given up."""
    asked = [move is not None and lane.failure is None for lane, move in zip(lanes, moves, strict=True)]
    for lane, move, asks in zip(lanes, moves, asked, strict=True):
        if asks and move:
            lane.ask(move[0], *move[1])
    return [lane.answer() if asks else None for lane, asks in zip(lanes, asked, strict=True)]


def visual_features(info: StoreInfo) -> list[str]:
    """Return the features that show the scene: colour images, depth and point clouds."""
    return [name for name, feature in info.features.items() if feature.meaning in VISUAL]


def _blanked(observation: Observation, visual: Collection[str]) -> Observation:
    """Return what is left without eyes: proprioception, and features that do not show the scene."""
    images = {name: np.zeros_like(image) for name, image in observation.images.items()}
    hidden = {name: np.zeros_like(observation.features[name]) for name in visual}
    return Observation(images, observation.proprio, {**observation.features, **hidden})


def _nothing(actor: "Actor") -> Observation:
    info = actor.info
    images = {name: np.zeros((camera.height, camera.width, 3), np.uint8) for name, camera in info.cameras.items()}
    features = {name: np.zeros(feature.shape, feature.dtype) for name, feature in info.features.items()}
    return Observation(images, np.zeros(len(info.proprio), np.float32), features)
