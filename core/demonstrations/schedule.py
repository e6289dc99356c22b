"""Decides which demonstration to attempt next, and which episode to store next.

The stored episodes and their order depend on the outcomes of the attempts alone: not on the number
of workers, nor on which worker is faster, nor on whether the collection was interrupted.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.episodes.episode import Episode
from core.errors import DataError
from core.store.segment import EncodedEpisode

# The collection ends if, after MIN_ATTEMPTS or more attempts at a task, the expert's success rate
# is below MIN_SUCCESS_RATE.
MIN_ATTEMPTS, MIN_SUCCESS_RATE = 50, 0.1
# It also ends if the environment broke in each of the first MAX_BROKEN attempts at a task.
MAX_BROKEN = 3


# an episode that waits to be stored
Success = Episode | EncodedEpisode


@dataclass
class TaskProgress:
    """The attempts at one task; their seeds are 0, 1, 2, ..., and they are settled in this order.

    An attempt is settled once its outcome and the outcomes of all lower seeds are known.

    stored: number of successes that are in the store, or that `pop_episode` has returned.
    tried: number of settled attempts. Their seeds are 0 ... tried - 1.
    started: number of attempts that have begun. Their seeds are 0 ... started - 1.
    frames: number of frames in the settled successes of this collection.
    """

    name: str
    stored: int = 0
    tried: int = 0
    started: int = 0
    frames: int = 0
    _unsettled: dict[int, Success | None] = field(default_factory=dict)
    _unstored: deque[Success] = field(default_factory=deque)

    @property
    def kept(self) -> int:
        """Number of successes among the settled attempts."""
        return self.stored + len(self._unstored)

    @property
    def failed(self) -> int:
        """Number of failures among the settled attempts."""
        return self.tried - self.kept

    @property
    def expected(self) -> int:
        """Number of successes if every unsettled attempt that has begun succeeds."""
        return self.kept + self.started - self.tried

    def add_outcome(self, seed: int, episode: Success | None) -> bool:
        """Add an outcome, then settle attempts in seed order.

        The first seed whose outcome is unknown, and all higher seeds, remain unsettled.

        Returns False if the expert's success rate is below MIN_SUCCESS_RATE.
        """
        self._unsettled[seed] = episode
        while self.tried in self._unsettled:
            outcome = self._unsettled.pop(self.tried)
            self.tried += 1
            if outcome is not None:
                self._unstored.append(outcome)
                self.frames += len(outcome)
            if self.tried >= MIN_ATTEMPTS and self.kept < MIN_SUCCESS_RATE * self.tried:
                return False
        return True

    def pop_episode(self) -> Success | None:
        """Return the next settled success to store, or None if all of them have been returned."""
        if not self._unstored:
            return None
        self.stored += 1
        return self._unstored.popleft()


# called with {task: progress} at the start and after each attempt
ProgressCallback = Callable[[Mapping[str, TaskProgress]], None]


class DemonstrationSchedule:
    """The attempts at all tasks: which attempt is next, and in which order episodes are stored.

    The first `episodes` successes of each task are kept, in order of their seeds. The tasks take
    turns: the store begins with the first success of each task, followed by the second success of
    each task. So the store of a smaller or interrupted collection equals the beginning of the store
    of a larger collection.

    committed: ids of the episodes in the store, "<task>/<seed>". Episodes are stored in the order
        of their seeds. So if the store has the seeds 0 and 2 of a task but not 1, the attempt with
        seed 1 has failed.
    noise: standard deviation of the expert's disturbances, for the advice in an error.
    broken: attempts in which the environment failed twice, "<task>/<seed>: reason".
    """

    def __init__(
        self, tasks: Sequence[str], episodes: int, committed: Iterable[str], noise: float = 0.0
    ) -> None:
        self.episodes = episodes
        self.noise = noise
        self.broken: list[str] = []
        self.tasks: Mapping[str, TaskProgress] = {name: TaskProgress(name) for name in tasks}
        for task, _, seed in (episode.rpartition("/") for episode in committed):
            if (progress := self.tasks.get(task)) is not None:
                progress.stored += 1
                progress.tried = progress.started = max(progress.tried, int(seed) + 1)

    @property
    def missing(self) -> int:
        """Number of episodes that are still to be stored."""
        return sum(max(0, self.episodes - progress.stored) for progress in self.tasks.values())

    def next_attempt(self, made: Mapping[str, int]) -> tuple[str, int] | None:
        """Return (task, seed) of the next attempt, for a task with the fewest expected successes.

        If there are several such tasks, the worker gets the one that it has done most often,
        because its environment may still hold that task's scene.

        made: {task: number of attempts} of the worker that makes the next attempt.

        Returns None if `expected` of every task has reached `episodes`.
        """
        progress = min(
            self.tasks.values(), key=lambda task: (task.expected, -made.get(task.name, 0))
        )
        if progress.expected >= self.episodes:
            return None
        progress.started += 1
        return progress.name, progress.started - 1

    def add_outcome(self, task: str, seed: int, outcome: Success | str | None) -> None:
        """Add the outcome of an attempt.

        outcome: the episode; None if the expert failed; or, if the environment failed, a text that
            says why. A failure of the environment also counts as a failed attempt.

        Raises DataError if the expert's success rate is below MIN_SUCCESS_RATE, or if the
        environment broke in each of the first MAX_BROKEN attempts at the task.
        """
        if isinstance(outcome, str):
            self.broken.append(f"{task}/{seed}: {outcome}")
        progress = self.tasks[task]
        goes_on = progress.add_outcome(seed, None if isinstance(outcome, str) else outcome)
        broken = [attempt for attempt in self.broken if attempt.startswith(f"{task}/")]
        if progress.tried == len(broken) >= MAX_BROKEN:
            raise DataError(
                f"task '{task}': the environment broke in each of {len(broken)} attempts, the last "
                f"one {broken[-1]}; mend the environment, or leave the task out"
            )
        if not goes_on:
            reason = f"; {len(broken)} broke, the last one {broken[-1]}" if broken else ""
            raise DataError(
                f"task '{task}': the expert succeeded in {progress.kept} of {progress.tried} "
                f"episodes{reason}; {self._advice(progress, len(broken))}, or leave the task out"
            )

    def _advice(self, progress: TaskProgress, broken: int) -> str:
        """Say what may help an expert that nearly always fails.

        broken: number of failures that are the environment's. In the others, the task was not done
            within its steps; noise can be the reason of these alone.
        """
        if broken > progress.failed / 2:
            return "mend the environment"
        if self.noise > 0:
            return "lower the noise"
        return "mend the expert, which acted without noise, or raise the task's max_steps"

    def pop_episodes(self) -> Iterator[Success]:
        """Yield the episodes that can be stored now, in the order in which they must be stored."""
        while self.missing:
            progress = min(self.tasks.values(), key=lambda progress: progress.stored)
            episode = progress.pop_episode()
            if episode is None:
                return
            yield episode
