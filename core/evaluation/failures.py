"""Lines about attempts that broke, and about successes that are too good to be true."""

from core.environments.first_steps import first_step_warning
from core.rollout.results import STANDARD, Evaluation


def failure_lines(evaluation: Evaluation) -> list[str]:
    """Return a line for each cause of failures: the first attempt with it, and how many others."""
    attempts: dict[str, list[str]] = {}
    for episode in evaluation.episodes:
        if episode.failure:
            name = f"{episode.condition} {episode.task}/{episode.seed}"
            attempts.setdefault(episode.failure, []).append(f"{name}, after {episode.steps} steps")
    for chain in evaluation.chains:
        if chain.failure:
            name = f"chain {chain.seed}, after {chain.steps} steps"
            attempts.setdefault(chain.failure, []).append(name)
    return [f"{_names(names)}: {cause}; counted as failed" for cause, names in attempts.items()]


def first_step_warnings(evaluation: Evaluation) -> list[str]:
    """Return a line for each task of which every attempt was done after its first step."""
    allowed = evaluation.protocol.get("max_steps", {})
    lines = []
    for task in evaluation.by_task():
        attempts = [e for e in evaluation.episodes if (e.task, e.condition) == (task, STANDARD)]
        steps = [e.steps for e in attempts] if all(e.success for e in attempts) else []
        lines.append(first_step_warning(task, steps, allowed.get(task, 0)))
    return [f"warning: {line}" for line in lines if line is not None]


def _names(names: list[str]) -> str:
    others = len(names) - 1
    return f"{names[0]}{f', and {others} more' if others else ''}"
