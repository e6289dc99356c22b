import random
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from core.demonstrations.schedule import MIN_ATTEMPTS, DemonstrationSchedule
from core.episodes.episode import Episode
from core.errors import DataError
from tests.factories import make_episode, make_info

TEMPLATE = make_episode(0, make_info())
TASKS = ("push", "reach", "open")
patterns = st.lists(st.lists(st.booleans(), max_size=12), min_size=3, max_size=3)


def attempt(task: str, seed: int, pattern: list[list[bool]]) -> Episode | None:
    """Return the outcome of an attempt: as in the pattern, and a success behind its end."""
    successes = pattern[TASKS.index(task)]
    if seed < len(successes) and not successes[seed]:
        return None
    return Episode(f"{task}/{seed}", task, "", TEMPLATE.images, TEMPLATE.actions, TEMPLATE.proprio)


def run(
    schedule: DemonstrationSchedule, pattern: list[list[bool]], workers: int, order: random.Random
) -> Iterator[str]:
    """Run `workers` attempts at a time, let them end in any order, and yield the stored ids.

    Any worker may make the next attempt, so the attempts that it has made are drawn at random.
    """
    running: list[tuple[str, int]] = []
    while True:
        while len(running) < workers:
            made = {task: order.randrange(3) for task in TASKS}
            if (next_attempt := schedule.next_attempt(made)) is None:
                break
            running.append(next_attempt)
        if not running:
            return
        task, seed = running.pop(order.randrange(len(running)))
        schedule.add_outcome(task, seed, attempt(task, seed, pattern))
        yield from (episode.id for episode in schedule.pop_episodes())


def expected(pattern: list[list[bool]], episodes: int) -> list[str]:
    """Return the ids of the store: the tasks take turns, each with its successes by seed."""
    successes = {task: [s for s in range(100) if attempt(task, s, pattern)] for task in TASKS}
    return [f"{task}/{successes[task][turn]}" for turn in range(episodes) for task in TASKS]


@given(patterns, st.integers(1, 6), st.integers(1, 5), st.randoms())
def test_the_store_does_not_depend_on_the_order_in_which_attempts_end(
    pattern: list[list[bool]], episodes: int, workers: int, order: random.Random
) -> None:
    schedule = DemonstrationSchedule(TASKS, episodes, ())
    assert list(run(schedule, pattern, workers, order)) == expected(pattern, episodes)
    assert schedule.missing == 0
    for task, progress in schedule.tasks.items():
        outcomes = [attempt(task, seed, pattern) for seed in range(progress.tried)]
        assert (progress.kept, progress.failed) == (episodes, outcomes.count(None))


@given(patterns, st.integers(1, 6), st.integers(0, 20), st.integers(1, 5), st.randoms())
def test_an_interrupted_store_is_continued(
    pattern: list[list[bool]], episodes: int, committed: int, workers: int, order: random.Random
) -> None:
    whole = expected(pattern, episodes)
    schedule = DemonstrationSchedule(TASKS, episodes, whole[:committed])
    assert whole[:committed] + list(run(schedule, pattern, workers, order)) == whole


def test_a_worker_stays_with_its_tasks_as_long_as_no_other_task_is_behind() -> None:
    schedule = DemonstrationSchedule(TASKS, 2, ())
    made = {"reach": 3, "open": 1}
    tasks = [schedule.next_attempt(made) for _ in range(6)]
    assert tasks == [
        *(("reach", 0), ("open", 0), ("push", 0)),
        *(("reach", 1), ("open", 1), ("push", 1)),
    ]


def test_failures_before_the_newest_success_are_not_tried_again() -> None:
    schedule = DemonstrationSchedule(["push"], 3, ["push/1", "push/4"])
    assert (schedule.tasks["push"].kept, schedule.tasks["push"].failed) == (2, 3)
    assert schedule.next_attempt({}) == ("push", 5)
    assert schedule.next_attempt({}) is None


def test_a_collection_ends_if_the_expert_fails_nearly_always() -> None:
    schedule, tries = DemonstrationSchedule(["push"], 10, (), noise=0.2), 0
    with pytest.raises(  # noqa: PT012
        DataError, match=r"'push': the expert succeeded in 4 of 50 episodes; lower the noise"
    ):
        while (next_attempt := schedule.next_attempt({})) is not None:
            tries += 1
            schedule.add_outcome(
                *next_attempt, attempt(*next_attempt, [[seed % 13 == 0 for seed in range(100)]])
            )
    assert tries == MIN_ATTEMPTS


def test_failures_of_the_environment_are_named_as_the_reason() -> None:
    schedule = DemonstrationSchedule(["push"], 10, ())
    with pytest.raises(  # noqa: PT012
        DataError,
        match=r"broke in each of 3 attempts, the last one push/2: died \(SIGSEGV\); mend the env",
    ):
        while (next_attempt := schedule.next_attempt({})) is not None:
            schedule.add_outcome(*next_attempt, "died (SIGSEGV)")


@pytest.mark.parametrize(
    ("noise", "breaks", "advice"),
    [
        (0.2, 0, "; lower the noise, or leave the task out"),
        (0.0, 0, "; mend the expert, which acted without noise, or raise the task's max_steps, or"),
        (0.2, 2, r"; 33 broke, the last one push/49: died \(SIGSEGV\); mend the environment, or"),
    ],
)
def test_the_advice_depends_on_why_attempts_fail(noise: float, breaks: int, advice: str) -> None:
    schedule = DemonstrationSchedule(["push"], 10, (), noise)
    with pytest.raises(DataError, match=f"0 of 50 episodes{advice}"):  # noqa: PT012
        while (next_attempt := schedule.next_attempt({})) is not None:
            breaking = next_attempt[1] % 3 > 2 - breaks
            schedule.add_outcome(*next_attempt, "died (SIGSEGV)" if breaking else None)
