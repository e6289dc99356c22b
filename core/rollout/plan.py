"""Which attempts an evaluation makes, in which order: a function of the recipe and of the
environment's tasks alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

from core.environments.environment import EVALUATION_SEEDS, Task
from core.errors import did_you_mean
from core.recipe.sections import EvaluateConfig
from core.rollout.results import STANDARD, ChainResult, Result

BLANK, SWAPPED = "blank_images", "swapped_words"


@dataclass(frozen=True)
class Attempt:
    """One episode to be rolled out: under which condition, at what, from which scene, and what the
    policy is told.
    """

    condition: str
    task: str
    seed: int
    instruction: str

    @property
    def policy_seed(self) -> int:
        """Seed of the policy's random draws; a control uses that of the standard attempt beside it."""
        return crc32(f"attempt {self.seed} at {self.task}".encode())


@dataclass(frozen=True)
class Chain:
    """One chain of tasks to be rolled out; scene and tasks are the environment's, by the seed."""

    seed: int

    def policy_seed(self, leg: int, task: str) -> int:
        """Seed of the policy's random draws in the chain's task number `leg`, counted from 0."""
        return crc32(f"chain {self.seed}, leg {leg}: {task}".encode())


Planned = Attempt | Chain


def plan(
    settings: EvaluateConfig,
    tasks: Mapping[str, Task],
    names: Sequence[str],
) -> list[Planned]:
    """All attempts, then all chains, in the order in which results list them."""
    return [*attempts(settings, tasks, names), *map(Chain, seeds(settings.chains))]


def planned_as(result: Result) -> Planned:
    """Return what a result came of, as a plan lists it."""
    if isinstance(result, ChainResult):
        return Chain(result.seed)
    return Attempt(result.condition, result.task, result.seed, result.instruction)


def attempts(
    settings: EvaluateConfig, tasks: Mapping[str, Task], names: Sequence[str]
) -> list[Attempt]:
    """All attempts, condition by condition; within one, all tasks of a seed stand together."""
    return [
        attempt
        for condition in (STANDARD, *settings.controls)
        for seed in seeds(
            settings.episodes
            if condition == STANDARD
            else settings.control_episodes or settings.episodes
        )
        for name in names
        if (attempt := _attempt(condition, tasks[name], seed, settings.swap)) is not None
    ]


def seeds(count: int) -> range:
    """Return the seeds of `count` attempts: scenes and phrasings that no demonstration used."""
    return range(EVALUATION_SEEDS, EVALUATION_SEEDS + count)


def _attempt(condition: str, task: Task, seed: int, swap: Sequence[str]) -> Attempt | None:
    told = task.instruction("evaluation", seed)
    if condition != SWAPPED:
        return Attempt(condition, task.name, seed, told)
    swapped = swap_words(told, swap)
    return Attempt(condition, task.name, seed, swapped) if swapped != told else None


def swap_words(instruction: str, words: Sequence[str]) -> str:
    """Replace each of the words by the next and the last by the first, whole words, whatever their
    case.
    """
    following = dict(zip(map(str.lower, words), [*words[1:], words[0]], strict=True))
    pattern = rf"\b({'|'.join(map(re.escape, words))})\b"
    return re.sub(
        pattern, lambda found: following[found[0].lower()], instruction, flags=re.IGNORECASE
    )


def task_names(wanted: Sequence[str], shown: Sequence[str], tasks: Mapping[str, Task]) -> list[str]:
    """Return the tasks to evaluate: those that [evaluate] names, else those of [demonstrations],
    else all.
    """
    return list(wanted or shown or tasks)


def mistakes(
    settings: EvaluateConfig, shown: Sequence[str], tasks: Mapping[str, Task]
) -> Iterator[str]:
    """Say what the recipe asks of an environment that it cannot do, one line each.

    shown: the tasks that [demonstrations] names.
    """
    named = {"demonstrations": shown, "evaluate": settings.tasks}
    unknown = [
        (section, name) for section, names in named.items() for name in names if name not in tasks
    ]
    for section, name in unknown:
        yield f"{section}.tasks: the environment has no task '{name}'{did_you_mean(name, list(tasks))}"
    if unknown or SWAPPED not in settings.controls:
        return
    planned = attempts(settings, tasks, task_names(settings.tasks, shown, tasks))
    if not any(attempt.condition == SWAPPED for attempt in planned):
        yield f"evaluate.swap: none of the instructions holds any of the words {', '.join(settings.swap)}"


def describe(settings: EvaluateConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return the protocol as plain data: all that the outcomes depend on beside policy and
    environment.
    """
    said = asdict(settings)
    return {
        "episodes": said["episodes"],
        "chains": said["chains"],
        "execute": said["replan_steps"],
        "lanes": said["num_envs"],
        "control_episodes": said["control_episodes"],
        **{key: list(said[key]) for key in ("controls", "swap")},
        **({"store": settings.store} if settings.store else {}),
        "tasks": list(names),
        "first_seed": EVALUATION_SEEDS,
        "success": "the environment called the task done after any step, within the task's max_steps",
    }
