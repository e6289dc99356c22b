"""Sets the order in which rollouts begin: long rollouts first, so that few rows idle at the end."""

from collections import deque
from collections.abc import Mapping, Sequence

from core.environments.environment import Task
from core.rollout.plan import PlannedAttempt, PlannedRollout
from core.rollout.results import STANDARD

Rank = tuple[float, ...]


class Queue:
    """The planned rollouts that have not begun yet.

    A row of the policy's batch idles only at the end, when the queue is empty and rollouts in other
    rows still go on. The last rollouts should therefore be short: chains begin first, and attempts
    follow, in descending order of the `max_steps` of their task. If tasks have the same
    `max_steps`, attempts under a control condition begin before standard attempts: most of them use
    all their steps, while success ends a standard attempt early.

    The next rollout is one of those with the lowest rank. Among these, a row stays with the task of
    its previous attempt, because its environment has loaded the scene of that task already. If none
    of these is at that task, the row takes the task with the most of them. Attempts at one task
    under one condition begin in the order of the plan.
    """

    def __init__(self, plan: Sequence[PlannedRollout], tasks: Mapping[str, Task]) -> None:
        # {rank: {task: rollouts}}, lowest rank first; for chains, the task is ""
        self._groups: dict[Rank, dict[str, deque[PlannedRollout]]] = {}
        for planned in sorted(plan, key=lambda planned: _rank(planned, tasks)):
            group = self._groups.setdefault(_rank(planned, tasks), {})
            group.setdefault(_task(planned), deque()).append(planned)

    def pop(self, previous: PlannedRollout | None) -> PlannedRollout | None:
        """Take the next rollout for the row that ran `previous`; None if the queue is empty."""
        if not self._groups:
            return None
        rank, group = next(iter(self._groups.items()))
        task = _task(previous)
        if task not in group:
            task = max(group, key=lambda name: len(group[name]))
        planned = group[task].popleft()
        if not group[task]:
            del group[task]
        if not group:
            del self._groups[rank]
        return planned


def _rank(planned: PlannedRollout, tasks: Mapping[str, Task]) -> Rank:
    """Return the rank of a rollout; rollouts with a lower rank begin earlier."""
    if not isinstance(planned, PlannedAttempt):
        return (-float("inf"), 0)
    return (-tasks[planned.task].max_steps, planned.condition == STANDARD)


def _task(planned: PlannedRollout | None) -> str:
    return planned.task if isinstance(planned, PlannedAttempt) else ""
