"""Notices tasks that are always done after one step, whatever the policy does."""

from collections.abc import Sequence


def first_step_warning(task: str, steps: Sequence[int], max_steps: int) -> str | None:
    """Return a line of text if each of several successes took one step; otherwise None.

    That may be right, and it cannot be told from outside. But most such tasks were done before they
    began, or their environment takes something else than the task for success.

    steps: control steps of the successes; empty if an attempt failed.
    max_steps: control steps that the task allows; nothing is said of a task of one step.
    """
    if max_steps == 1 or len(steps) < 2 or set(steps) != {1}:
        return None
    return (
        f"task '{task}': all {len(steps)} attempts were done after their first step; see that the "
        "environment's `step` and `is_done` mean this task"
    )
