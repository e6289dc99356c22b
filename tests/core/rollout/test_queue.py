from dataclasses import replace

from core.rollout.plan import BLANK, PlannedAttempt, PlannedChain
from core.rollout.queue import Queue
from core.rollout.results import STANDARD
from tests.toy_environment import MAX_STEPS, toy_tasks

FAR = replace(toy_tasks()["reach_red"], name="far", max_steps=2 * MAX_STEPS)
TASKS = toy_tasks() | {"far": FAR}
PLAN = [
    PlannedAttempt(condition, task, seed, "")
    for condition in (STANDARD, BLANK)
    for seed in range(2)
    for task in TASKS
]


def pop_all(queue: Queue, num_rows: int) -> list:
    """Return everything in the queue, in the order in which rows take it in turn."""
    order, previous = [], [None] * num_rows
    while any(previous := [queue.pop(planned) for planned in previous]):
        order += [planned for planned in previous if planned]
    return order


def test_what_may_take_longest_begins_first():
    order = pop_all(Queue([*PLAN, PlannedChain(0), PlannedChain(1)], TASKS), 1)
    assert order[:2] == [PlannedChain(0), PlannedChain(1)]
    ranks = [(planned.task == "far", planned.condition == BLANK) for planned in order[2:]]
    assert ranks == sorted(ranks, reverse=True)


def test_everything_begins_once_and_a_task_in_the_order_of_the_plan():
    for num_rows in (1, 2, 3, 16):
        order = pop_all(Queue(PLAN, TASKS), num_rows)
        assert sorted(map(PLAN.index, order)) == list(range(len(PLAN)))
        for group in {(planned.condition, planned.task) for planned in PLAN}:
            seeds = [
                planned.seed for planned in order if (planned.condition, planned.task) == group
            ]
            assert seeds == sorted(seeds)


def test_a_row_stays_with_its_task_among_attempts_of_the_same_rank():
    plan = [PlannedAttempt(STANDARD, task, seed, "") for seed in range(3) for task in toy_tasks()]
    queue = Queue(plan, TASKS)
    first, second = queue.pop(None), queue.pop(None)
    assert {first.task, second.task} == set(toy_tasks())
    assert [queue.pop(second).task for _ in range(2)] == [second.task] * 2
    assert queue.pop(second).task == first.task  # none of its own task is left


def test_an_empty_plan_is_an_empty_queue():
    assert Queue([], TASKS).pop(None) is None
