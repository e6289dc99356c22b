"""Demonstrations from workers into a store: every worker busy, every whole episode kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from core.demonstrations.expert import demonstrate
from core.demonstrations.schedule import Ledger, Report
from core.environments.workers import EnvironmentFailed, Worker, wait_for_any
from core.episodes.episode import Episode
from core.store.writer import StoreWriter

LEAST_PART, PARTS = (
    32,
    32,
)  # episodes that a commit has at least, commits that a store has about: readers open each


@dataclass(frozen=True)
class Attempt:
    """A seed of a task, and whether it is tried for the second time since the environment broke."""

    task: str
    seed: int
    retried: bool = False


def record(
    writer: StoreWriter,
    ledger: Ledger,
    outcomes: Iterator[tuple[Attempt, Episode | str | None]],
    report: Report,
) -> None:
    """Store what attempts bring. However this ends, the whole episodes recorded up to then are
    committed.
    """
    pending, part = 0, max(LEAST_PART, ledger.episodes * len(ledger.tasks) // PARTS)
    report(ledger.tasks)
    try:
        for attempt, outcome in outcomes:
            ledger.settle(attempt.task, attempt.seed, outcome)
            for episode in ledger.due():
                writer.append(episode)
                pending += 1
            if pending >= part:
                writer.commit()
                pending = 0
            report(ledger.tasks)
    finally:
        writer.commit()


def attempts(
    workers: Sequence[Worker], ledger: Ledger, noise: float
) -> Iterator[tuple[Attempt, Episode | str | None]]:
    """Keep the workers busy; yield what they did as it comes in: an episode, None, or why it broke
    twice.
    """
    busy: dict[Worker, Attempt] = {}

    def occupy(worker: Worker, attempt: Attempt | None) -> None:
        if attempt is not None:
            worker.submit(demonstrate, attempt.task, attempt.seed, noise)
            busy[worker] = attempt

    while True:
        for worker in workers:
            if worker not in busy:
                occupy(worker, _next(ledger))
        if not busy:
            return
        for worker in wait_for_any(list(busy)):
            attempt, outcome = busy.pop(worker), _outcome(worker)
            if isinstance(outcome, str) and not attempt.retried:
                occupy(worker, replace(attempt, retried=True))
                continue
            occupy(worker, _next(ledger))  # before the reader takes its time to store the episode
            yield attempt, outcome


def _next(ledger: Ledger) -> Attempt | None:
    following = ledger.next_attempt()
    return Attempt(*following) if following else None


def _outcome(worker: Worker) -> Episode | str | None:
    """Return what a worker brings; one whose environment broke is started again, and the reason
    returned.
    """
    try:
        outcome: Episode | None = worker.result()
    except EnvironmentFailed as failure:
        worker.restart()
        return str(failure)
    return outcome
