"""Runs attempts of the expert in several worker processes, and writes its episodes to a store."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from core.demonstrations.expert import demonstrate
from core.demonstrations.schedule import DemonstrationSchedule, ProgressCallback
from core.environments.workers import EnvironmentFailed, Worker, wait_for_any
from core.episodes.episode import Episode
from core.errors import DataError
from core.store.segment import EncodedEpisode
from core.store.writer import StoreWriter

# Each commit writes one segment, and readers open every segment, so there should be few commits. A
# large store has about COMMITS_PER_STORE commits. A small store has fewer commits, because every
# commit except the last has at least MIN_EPISODES_PER_COMMIT episodes.
MIN_EPISODES_PER_COMMIT = 32
COMMITS_PER_STORE = 32

# The episode if the expert succeeded; None if the expert failed; or, if the environment failed, a
# text with the reason.
Outcome = Episode | str | None


@dataclass(frozen=True)
class DemonstrationAttempt:
    """An attempt at a task with a seed, or its retry after the environment failed."""

    task: str
    seed: int
    is_retry: bool = False


def record(
    writer: StoreWriter,
    schedule: DemonstrationSchedule,
    outcomes: Iterator[tuple[DemonstrationAttempt, Outcome]],
    report: ProgressCallback,
) -> None:
    """Write the episodes of attempts to the store, in the order of the schedule.

    At the end, or after an error or Ctrl-C, all episodes written so far are committed.
    """
    total = schedule.episodes * len(schedule.tasks)
    episodes_per_commit = max(MIN_EPISODES_PER_COMMIT, total // COMMITS_PER_STORE)
    uncommitted = 0
    report(schedule.tasks)
    try:
        for attempt, outcome in outcomes:
            schedule.add_outcome(attempt.task, attempt.seed, _encoded(outcome, writer))
            for episode in schedule.pop_episodes():
                if isinstance(episode, Episode):
                    writer.append(episode)
                else:
                    writer.append_encoded(episode)
                uncommitted += 1
            if uncommitted >= episodes_per_commit:
                writer.commit()
                uncommitted = 0
            report(schedule.tasks)
    finally:
        writer.commit()


def _encoded(outcome: Outcome, writer: StoreWriter) -> Outcome | EncodedEpisode:
    """Encode an episode, since it may wait long for those that are stored before it.

    The first episode of a store decides the codecs. Until it has come, episodes stay as they are.
    """
    if isinstance(outcome, Episode) and writer.codecs is not None:
        return writer.encode(outcome)
    return outcome


def run_attempts(
    workers: Sequence[Worker],
    schedule: DemonstrationSchedule,
    noise: float,
    replayable: bool = True,
) -> Iterator[tuple[DemonstrationAttempt, Outcome]]:
    """Keep all workers busy with the schedule's attempts; yield each outcome as it arrives.

    An attempt in which the environment failed is made once more in a fresh environment, unless the
    environment raised DataError or returned what it must not: it would do the same again.

    replayable: whether an attempt may be made once more; see `Environment`.
    """
    busy: dict[Worker, DemonstrationAttempt] = {}
    made: dict[Worker, Counter[str]] = {worker: Counter() for worker in workers}

    def start(worker: Worker, attempt: DemonstrationAttempt | None) -> None:
        if attempt is not None:
            worker.submit(demonstrate, attempt.task, attempt.seed, noise)
            busy[worker] = attempt
            made[worker][attempt.task] += 1

    while True:
        for worker in workers:
            if worker not in busy:
                start(worker, _next_attempt(schedule, made[worker]))
        if not busy:
            return
        for worker in wait_for_any(list(busy)):
            attempt = busy.pop(worker)
            outcome: Outcome
            try:
                outcome = worker.result()
            except DataError as error:
                outcome = str(error)
            except EnvironmentFailed as failure:
                worker.restart()
                if replayable and not attempt.is_retry:
                    start(worker, replace(attempt, is_retry=True))
                    continue
                outcome = str(failure)
            # Start the next attempt first: the worker is busy while the caller stores the episode.
            start(worker, _next_attempt(schedule, made[worker]))
            yield attempt, outcome


def _next_attempt(
    schedule: DemonstrationSchedule, made: Mapping[str, int]
) -> DemonstrationAttempt | None:
    task_and_seed = schedule.next_attempt(made)
    return DemonstrationAttempt(*task_and_seed) if task_and_seed else None
