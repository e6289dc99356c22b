import random
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from core.demonstrations.schedule import ENOUGH_TRIES, Ledger
from core.episodes.episode import Episode
from core.errors import DataError
from tests.factories import make_episode, make_info

TEMPLATE = make_episode(0, make_info())
TASKS = ("push", "reach", "open")
outcomes = st.lists(st.lists(st.booleans(), max_size=12), min_size=3, max_size=3)


def attempt(task: str, seed: int, pattern: list[list[bool]]) -> Episode | None:
    """What comes of an attempt: as the pattern says, and after its end a success."""
    successes = pattern[TASKS.index(task)]
    if seed < len(successes) and not successes[seed]:
        return None
    return Episode(f"{task}/{seed}", task, "", TEMPLATE.images, TEMPLATE.actions, TEMPLATE.proprio)


def run(
    ledger: Ledger, pattern: list[list[bool]], lanes: int, order: random.Random
) -> Iterator[str]:
    """Keep so many attempts going, let them end in any order, and yield the ids in the order of the
    store.
    """
    going: list[tuple[str, int]] = []
    while True:
        while len(going) < lanes and (following := ledger.next_attempt()) is not None:
            going.append(following)
        if not going:
            return
        task, seed = going.pop(order.randrange(len(going)))
        ledger.settle(task, seed, attempt(task, seed, pattern))
        yield from (episode.id for episode in ledger.due())


def expected(pattern: list[list[bool]], episodes: int) -> list[str]:
    kept = {task: [s for s in range(100) if attempt(task, s, pattern)][:episodes] for task in TASKS}
    return [f"{task}/{kept[task][rank]}" for rank in range(episodes) for task in TASKS]


@given(outcomes, st.integers(1, 6), st.integers(1, 5), st.randoms())
def test_the_store_does_not_depend_on_who_is_first(
    pattern: list[list[bool]], episodes: int, lanes: int, order: random.Random
) -> None:
    ledger = Ledger(TASKS, episodes, ())
    assert list(run(ledger, pattern, lanes, order)) == expected(pattern, episodes)
    assert ledger.missing == 0
    for task, record in ledger.tasks.items():
        attempts = [attempt(task, seed, pattern) for seed in range(record.tried)]
        assert (record.kept, record.failed) == (episodes, attempts.count(None))


@given(outcomes, st.integers(1, 6), st.integers(0, 20), st.integers(1, 5), st.randoms())
def test_an_interrupted_store_is_continued(
    pattern: list[list[bool]], episodes: int, committed: int, lanes: int, order: random.Random
) -> None:
    whole = expected(pattern, episodes)
    ledger = Ledger(TASKS, episodes, whole[:committed])
    assert whole[:committed] + list(run(ledger, pattern, lanes, order)) == whole


def test_failures_before_the_newest_success_are_not_tried_again() -> None:
    ledger = Ledger(["push"], 3, ["push/1", "push/4"])
    assert (ledger.tasks["push"].kept, ledger.tasks["push"].failed) == (2, 3)
    assert ledger.next_attempt() == ("push", 5)
    assert ledger.next_attempt() is None


def test_an_expert_that_fails_nearly_always_is_not_asked_for_ever() -> None:
    ledger, tries = Ledger(["push"], 10, ()), 0
    with pytest.raises(  # noqa: PT012
        DataError, match=r"'push': the expert succeeded in 4 of 50 episodes; lower the noise"
    ):
        while (following := ledger.next_attempt()) is not None:
            tries += 1
            ledger.settle(
                *following, attempt(*following, [[seed % 13 == 0 for seed in range(100)]])
            )
    assert tries == ENOUGH_TRIES


def test_what_broke_is_named_when_it_is_why_the_expert_failed() -> None:
    ledger = Ledger(["push"], 10, ())
    with pytest.raises(  # noqa: PT012
        DataError, match=r"0 of 50 episodes; 50 broke, the last one push/49: died \(SIGSEGV\)"
    ):
        while (following := ledger.next_attempt()) is not None:
            ledger.settle(*following, "died (SIGSEGV)")
