"""Which demonstration to try next, and which to store next: the same whoever works, and after any
interruption.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.episodes.episode import Episode
from core.errors import DataError

ENOUGH_TRIES, LEAST_SUCCESS = (
    50,
    0.1,
)  # after so many tries, an expert worth asking has succeeded this often


@dataclass
class TaskRecord:
    """One task's attempts; those of the seeds 0 ... tried - 1 are decided.

    stored: successes that are in the store, or on their way into it.
    started: seeds that somebody has been asked to try.
    frames: of the successes among those attempts that this call has made.
    """

    name: str
    stored: int = 0
    tried: int = 0
    started: int = 0
    frames: int = 0
    _early: dict[int, Episode | None] = field(default_factory=dict)
    _ready: deque[Episode] = field(default_factory=deque)

    @property
    def kept(self) -> int:
        """Successes."""
        return self.stored + len(self._ready)

    @property
    def failed(self) -> int:
        """Attempts that were no success."""
        return self.tried - self.kept

    @property
    def expected(self) -> int:
        """Successes if all that has been started succeeds."""
        return self.kept + self.started - self.tried

    def settle(self, seed: int, episode: Episode | None) -> bool:
        """Take in an attempt, and decide what the seeds before it no longer hold up; return whether
        to go on.
        """
        self._early[seed] = episode
        while self.tried in self._early:
            decided = self._early.pop(self.tried)
            self.tried += 1
            if decided is not None:
                self._ready.append(decided)
                self.frames += len(decided)
            if self.tried >= ENOUGH_TRIES and self.kept < LEAST_SUCCESS * self.tried:
                return False
        return True

    def take(self) -> Episode | None:
        """Return the next success for the store, or None where it is not decided yet."""
        if not self._ready:
            return None
        self.stored += 1
        return self._ready.popleft()


Report = Callable[[Mapping[str, TaskRecord]], None]  # what is told after each attempt


class Ledger:
    """All tasks' attempts.

    Each task's seeds count from 0, and its first `episodes` successes are kept. The store takes the
    tasks in turns: first each task's first success, then each one's second. So a store of few
    episodes is the beginning of one of
    many, and an interrupted store the beginning of the whole.

    committed: what the store has, as "<task>/<seed>"; what it lacks below a task's newest seed has
    failed.
    broken: attempts in which the environment broke, as "<task>/<seed>: reason".
    """

    def __init__(self, tasks: Sequence[str], episodes: int, committed: Iterable[str]) -> None:
        self.episodes = episodes
        self.broken: list[str] = []
        self.tasks: Mapping[str, TaskRecord] = {name: TaskRecord(name) for name in tasks}
        for task, _, seed in (episode.rpartition("/") for episode in committed):
            if (record := self.tasks.get(task)) is not None:
                record.stored += 1
                record.tried = record.started = max(record.tried, int(seed) + 1)

    @property
    def missing(self) -> int:
        """Episodes that the store is asked for and does not have."""
        return sum(max(0, self.episodes - record.stored) for record in self.tasks.values())

    def next_attempt(self) -> tuple[str, int] | None:
        """Return the (task, seed) to try next, of the task that is furthest behind; None: enough
        are being tried.
        """
        record = min(self.tasks.values(), key=lambda record: record.expected)
        if record.expected >= self.episodes:
            return None
        record.started += 1
        return record.name, record.started - 1

    def settle(self, task: str, seed: int, outcome: Episode | str | None) -> None:
        """Take in an attempt: its episode, None for a failure, or why the environment broke, a
        failure too.

        Raises DataError where an expert fails nearly always.
        """
        if isinstance(outcome, str):
            self.broken.append(f"{task}/{seed}: {outcome}")
        record = self.tasks[task]
        if not record.settle(seed, outcome if isinstance(outcome, Episode) else None):
            reason = (
                f"; {len(self.broken)} broke, the last one {self.broken[-1]}" if self.broken else ""
            )
            raise DataError(
                f"task '{task}': the expert succeeded in {record.kept} of {record.tried} episodes{reason}; "
                f"lower the noise, or leave the task out"
            )

    def due(self) -> Iterator[Episode]:
        """Yield the successes whose turn it is."""
        while self.missing:
            episode = min(self.tasks.values(), key=lambda record: record.stored).take()
            if episode is None:
                return
            yield episode
