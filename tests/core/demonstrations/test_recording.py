import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from core.demonstrations import recording
from core.demonstrations.recording import (
    DemonstrationAttempt,
    Outcome,
    record,
    run_attempts,
)
from core.demonstrations.schedule import DemonstrationSchedule, TaskProgress
from core.environments.workers import EnvironmentSpec, open_workers
from core.episodes.episode import Episode
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import make_episode, make_info
from tests.toy_environment import Fault, ToyConfig, ToyEnvironment

TEMPLATE = make_episode(0, make_info())


def episode(seed: int) -> Episode:
    return Episode(
        f"push/{seed}", "push", "push it", TEMPLATE.images, TEMPLATE.actions, TEMPLATE.proprio
    )


def successes(*seeds: int) -> Iterator[tuple[DemonstrationAttempt, Outcome]]:
    return ((DemonstrationAttempt("push", seed), episode(seed)) for seed in seeds)


def ignore(tasks: Mapping[str, TaskProgress]) -> None:
    pass


def stored_ids(writer: StoreWriter) -> list[str]:
    store = EpisodeStore(writer.path)
    return [store.episode_id(number) for number in range(len(store))]


def test_episodes_are_stored_in_the_order_of_their_seeds(tmp_path) -> None:
    writer = StoreWriter(tmp_path / "a.zarr", make_info())
    record(writer, DemonstrationSchedule(["push"], 3, ()), successes(2, 0, 1), ignore)
    assert stored_ids(writer) == ["push/0", "push/1", "push/2"]


def test_episodes_that_wait_for_an_earlier_one_wait_encoded(tmp_path) -> None:
    """A seed that takes long must not let the raw frames of all later seeds pile up."""
    images: list[weakref.ref[np.ndarray]] = []

    def outcomes() -> Iterator[tuple[DemonstrationAttempt, Outcome]]:
        for seed in (0, *range(2, 20), 1):
            frames = {name: array.copy() for name, array in TEMPLATE.images.items()}
            images.extend(weakref.ref(array) for array in frames.values())
            yield DemonstrationAttempt("push", seed), replace(episode(seed), images=frames)
            del frames
            alive.append(sum(image() is not None for image in images))

    alive: list[int] = []
    writer = StoreWriter(tmp_path / "a.zarr", make_info())
    record(writer, DemonstrationSchedule(["push"], 20, ()), outcomes(), ignore)
    assert stored_ids(writer) == [f"push/{seed}" for seed in range(20)]
    assert max(alive) <= 2 * len(TEMPLATE.images)  # of the newest episode, and of the first


def test_a_commit_is_made_whenever_enough_episodes_are_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "MIN_EPISODES_PER_COMMIT", 2)
    writer = StoreWriter(tmp_path / "a.zarr", make_info())
    committed: list[int] = []
    record(
        writer,
        DemonstrationSchedule(["push"], 5, ()),
        successes(0, 1, 2, 3, 4),
        lambda tasks: committed.append(len(writer.committed)),
    )
    assert committed == [0, 0, 2, 2, 4, 4]
    assert len(writer.committed) == 5


def test_episodes_before_an_interrupt_are_committed(tmp_path) -> None:
    def interrupted() -> Iterator[tuple[DemonstrationAttempt, Outcome]]:
        yield from successes(0, 1)
        raise KeyboardInterrupt

    writer = StoreWriter(tmp_path / "a.zarr", make_info())
    with pytest.raises(KeyboardInterrupt):
        record(writer, DemonstrationSchedule(["push"], 5, ()), interrupted(), ignore)
    assert stored_ids(writer) == ["push/0", "push/1"]


@pytest.mark.parametrize("fails_again", [False, True])
def test_an_attempt_is_made_once_more_after_the_environment_failed(
    tmp_path, fails_again: bool
) -> None:
    fault = Fault("crash", seed=0, marker="" if fails_again else str(tmp_path / "once"))
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(faults=(fault,)))
    schedule = DemonstrationSchedule(["reach_red"], 1, ())
    with open_workers(spec, 1, 60.0) as workers:
        attempt, outcome = next(run_attempts(workers, schedule, noise=0.0))
    assert attempt == DemonstrationAttempt("reach_red", 0, is_retry=True)
    if fails_again:
        assert outcome == "died (exit code 3)"
    else:
        assert isinstance(outcome, Episode)
        assert outcome.id == "reach_red/0"


def test_a_failed_expert_is_no_episode_and_no_retry() -> None:
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(fails_every=1))
    schedule = DemonstrationSchedule(["reach_red"], 1, ())
    with open_workers(spec, 1, 60.0) as workers:
        attempt, outcome = next(run_attempts(workers, schedule, noise=0.0))
    assert (attempt.is_retry, outcome) == (False, None)


def test_the_schedule_learns_which_attempts_a_worker_has_made(monkeypatch) -> None:
    made: list[Counter[str]] = []

    def next_attempt(schedule: DemonstrationSchedule, counts: Mapping[str, int]):
        made.append(Counter(counts))
        return original(schedule, counts)

    original = DemonstrationSchedule.next_attempt
    monkeypatch.setattr(DemonstrationSchedule, "next_attempt", next_attempt)
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig())
    schedule = DemonstrationSchedule(["reach_red", "reach_blue"], 1, ())
    with open_workers(spec, 1, 60.0) as workers:
        assert len(list(run_attempts(workers, schedule, noise=0.0))) == 2
    both = Counter(reach_red=1, reach_blue=1)
    assert made[:3] == [Counter(), Counter(reach_red=1), both]
