"""In which order attempts begin: what may take longest first, so that few rows idle at the end."""

from collections import deque
from collections.abc import Mapping, Sequence

from core.environments.environment import Task
from core.rollout.plan import Attempt, Planned
from core.rollout.results import STANDARD


class Queue:
    """What is still to be begun.

    While something waits, no row is idle; rows idle only at the end, for as long as the attempts
    begun last take. So the end must hold what cannot take long: chains come first, then attempts by
    their task's largest number of steps, and among equal ones the controls, which mostly run to it,
    before the standard attempts, which success ends early.

    Among equals a row stays with the task that it has just tried, whose scene its environment has
    at hand; else it takes from the task of which most are left. Attempts at one task under one
    condition begin in the plan's order.
    """

    def __init__(self, planned: Sequence[Planned], tasks: Mapping[str, Task]) -> None:
        # {rank: {task: attempts}}, lowest rank first
        self._groups: dict[tuple[float, ...], dict[str, deque[Planned]]] = {}
        for one in sorted(planned, key=lambda one: _rank(one, tasks)):
            group = self._groups.setdefault(_rank(one, tasks), {})
            group.setdefault(_task(one), deque()).append(one)

    def take(self, previous: Planned | None) -> Planned | None:
        """Return what the row that has done `previous` begins next; None: nothing is left."""
        if not self._groups:
            return None
        rank, group = next(iter(self._groups.items()))
        task = _task(previous)
        if task not in group:
            task = max(group, key=lambda name: len(group[name]))
        chosen = group[task].popleft()
        if not group[task]:
            del group[task]
        if not group:
            del self._groups[rank]
        return chosen


def _rank(planned: Planned, tasks: Mapping[str, Task]) -> tuple[float, ...]:
    """What begins earlier has the lower rank."""
    if not isinstance(planned, Attempt):
        return (-float("inf"), 0)
    return (-tasks[planned.task].max_steps, planned.condition == STANDARD)


def _task(planned: Planned | None) -> str:
    return planned.task if isinstance(planned, Attempt) else ""
