from dataclasses import replace

from core.rollout.plan import BLANK, Attempt, Chain
from core.rollout.queue import Queue
from core.rollout.results import STANDARD
from tests.toy_environment import LONGEST, toy_tasks

TASKS = toy_tasks() | {"far": replace(toy_tasks()["reach_red"], name="far", max_steps=2 * LONGEST)}
PLAN = [
    Attempt(condition, task, seed, "")
    for condition in (STANDARD, BLANK)
    for seed in range(2)
    for task in TASKS
]


def taken(queue: Queue, rows: int) -> list:
    """What so many rows take in turn."""
    found, last = [], [None] * rows
    while any(last := [queue.take(one) for one in last]):
        found += [one for one in last if one]
    return found


def test_what_may_take_longest_begins_first():
    found = taken(Queue([*PLAN, Chain(0), Chain(1)], TASKS), 1)
    assert found[:2] == [Chain(0), Chain(1)]
    ranks = [(attempt.task == "far", attempt.condition == BLANK) for attempt in found[2:]]
    assert ranks == sorted(ranks, reverse=True)


def test_everything_is_taken_once_and_a_task_in_the_plans_order():
    for rows in (1, 2, 3, 16):
        found = taken(Queue(PLAN, TASKS), rows)
        assert sorted(map(PLAN.index, found)) == list(range(len(PLAN)))
        for condition, task in {(attempt.condition, attempt.task) for attempt in PLAN}:
            of_one = [a.seed for a in found if (a.condition, a.task) == (condition, task)]
            assert of_one == sorted(of_one)


def test_a_row_stays_with_its_task_among_equals():
    plan = [Attempt(STANDARD, task, seed, "") for seed in range(3) for task in toy_tasks()]
    queue = Queue(plan, TASKS)
    first, second = queue.take(None), queue.take(None)
    assert {first.task, second.task} == set(toy_tasks())
    assert [queue.take(second).task for _ in range(2)] == [second.task] * 2
    assert queue.take(second).task == first.task  # nothing is left of its own


def test_a_queue_of_nothing_is_empty():
    assert Queue([], TASKS).take(None) is None
