"""How many of the policy's rows work in an evaluation, counted again from the steps of one that was
made.

python -m tests.benchmarks.rows docs/tabletop_full/results.json
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from core.environments.environment import Task
from core.rollout.plan import PlannedAttempt, PlannedChain, PlannedRollout
from core.rollout.queue import Queue
from core.rollout.results import Evaluation, read_evaluation


def steps_of(evaluation: Evaluation) -> dict[PlannedRollout, int]:
    """Policy steps of every attempt and chain, in the order of the results."""
    attempts = {
        PlannedAttempt(e.condition, e.task, e.seed, e.instruction): e.steps
        for e in evaluation.episodes
    }
    return {**attempts, **{PlannedChain(chain.seed): chain.steps for chain in evaluation.chains}}


def tasks_of(steps: Mapping[PlannedRollout, int]) -> dict[str, Task]:
    """The tasks as far as the order asks: the most steps that an attempt took stand for
    `max_steps`.
    """
    names = {planned.task for planned in steps if isinstance(planned, PlannedAttempt)}
    most = {
        n: max(s for p, s in steps.items() if isinstance(p, PlannedAttempt) and p.task == n)
        for n in names
    }
    return {name: Task(name, ("",), most[name]) for name in names}


def together(steps: Sequence[int], rows: int) -> int:
    """Policy steps where as many attempts as rows begin together, and wait for the slowest."""
    return sum(max(steps[first : first + rows]) for first in range(0, len(steps), rows))


def refilled(order: Iterable[int], rows: int) -> int:
    """Policy steps where the next attempt begins in the row that is free first."""
    ends = [0] * rows
    for steps in order:
        row = ends.index(min(ends))
        ends[row] += steps
    return max(ends)


def in_queue_order(steps: Mapping[PlannedRollout, int], rows: int) -> int:
    """Policy steps where rows take from the queue as evaluation's rows do."""
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
    print(f"| {rows} rows | policy steps | rows that work |\n|---|---|---|")
    for way, count in ways.items():
        work = sum((steps if "chains" in way else attempts).values())
        print(f"| {way} | {count:,} | {work / rows / count:.1%} |")


if __name__ == "__main__":
    main()
