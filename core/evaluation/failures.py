"""Names the attempts that broke, with a line for each cause."""

from core.rollout.results import Evaluation


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


def _names(names: list[str]) -> str:
    others = len(names) - 1
    return f"{names[0]}{f', and {others} more' if others else ''}"
