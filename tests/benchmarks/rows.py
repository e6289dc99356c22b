"""The share of the policy's rows that are busy in an evaluation, for several ways of scheduling.

    python -m tests.benchmarks.rows docs/tabletop_full/results.json

It is computed from the number of steps of each attempt in the results of an evaluation.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from core.environments.environment import Task
from core.rollout.plan import PlannedAttempt, PlannedChain, PlannedRollout
from core.rollout.queue import Queue
from core.rollout.results import Evaluation, read_evaluation


def steps_of(evaluation: Evaluation) -> dict[PlannedRollout, int]:
    """Return the policy steps of every attempt and chain, in the order of the results."""
    attempts = {
        PlannedAttempt(e.condition, e.task, e.seed, e.instruction): e.steps
        for e in evaluation.episodes
    }
    return {**attempts, **{PlannedChain(chain.seed): chain.steps for chain in evaluation.chains}}


def tasks_of(steps: Mapping[PlannedRollout, int]) -> dict[str, Task]:
    """Return the tasks, as far as the queue needs them.

    `max_steps` is the largest number of steps that an attempt at the task took.
    """
    most: dict[str, int] = {}
    for planned, count in steps.items():
        if isinstance(planned, PlannedAttempt):
            most[planned.task] = max(count, most.get(planned.task, 0))
    return {name: Task(name, ("",), max_steps) for name, max_steps in most.items()}


def together(steps: Sequence[int], rows: int) -> int:
    """Count policy steps if the rows begin attempts together and wait for the slowest."""
    return sum(max(steps[first : first + rows]) for first in range(0, len(steps), rows))


def refilled(order: Iterable[int], rows: int) -> int:
    """Count policy steps if the next attempt begins in the row that is free first."""
    ends = [0] * rows
    for steps in order:
        row = ends.index(min(ends))
        ends[row] += steps
    return max(ends)


def in_queue_order(steps: Mapping[PlannedRollout, int], rows: int) -> int:
    """Count policy steps if rows take attempts from the queue, as in an evaluation."""
    queue, previous, ends = Queue(list(steps), tasks_of(steps)), [None] * rows, [0] * rows
    idle: list[int] = []
    while len(idle) < rows:
        row = min((row for row in range(rows) if row not in idle), key=lambda row: ends[row])
        planned = queue.pop(previous[row])
        if planned is None:
            idle.append(row)
        else:
            previous[row], ends[row] = planned, ends[row] + steps[planned]
    return max(ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "results", type=Path, help="results.json of an evaluation with evaluate.replan_steps = 1"
    )
    parser.add_argument("--rows", type=int, default=16)
    arguments = parser.parse_args()
    steps, rows = steps_of(read_evaluation(arguments.results)), arguments.rows
    attempts = {
        planned: count for planned, count in steps.items() if isinstance(planned, PlannedAttempt)
    }
    ways = {
        "attempts, begun together, all waiting for the slowest": together(
            list(attempts.values()), rows
        ),
        "attempts, refilled in the order of the results": refilled(attempts.values(), rows),
        "attempts, refilled in the order of evaluation": in_queue_order(attempts, rows),
        "with the chains, refilled in the order of evaluation": in_queue_order(steps, rows),
    }
    print(f"| {rows} rows | policy steps | busy rows |\n|---|---|---|")
    for way, count in ways.items():
        work = sum((steps if "chains" in way else attempts).values())
        print(f"| {way} | {count:,} | {work / rows / count:.1%} |")


if __name__ == "__main__":
    main()
