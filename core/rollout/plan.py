"""Plans an evaluation: which attempts and chains it makes, and under which conditions.

A plan depends only on the recipe and on the environment's tasks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

from core.environments.environment import Task, default_tasks
from core.errors import did_you_mean
from core.recipe.sections import EvaluateConfig
from core.rollout.results import STANDARD, ChainResult, Result

# the control conditions, called controls; the only other condition is STANDARD
BLANK, SWAPPED, BLANK_HISTORY = "blank_images", "swapped_words", "blank_history"


@dataclass(frozen=True)
class PlannedAttempt:
    """One attempt to make: its condition, task, seed of the scene, and instruction."""

    condition: str
    task: str
    seed: int
    instruction: str

    @property
    def policy_seed(self) -> int:
        """Seed of the policy's random draws; it does not depend on the condition."""
        return crc32(f"attempt {self.seed} at {self.task}".encode())


@dataclass(frozen=True)
class PlannedChain:
    """One chain of tasks to try; the environment derives the scene and the tasks from the seed."""

    seed: int

    def policy_seed(self, position: int, task: str) -> int:
        """Seed of the policy's random draws in one task of the chain; `position` counts from 0."""
        return crc32(f"chain {self.seed}, leg {position}: {task}".encode())


PlannedRollout = PlannedAttempt | PlannedChain


def plan_rollouts(
    settings: EvaluateConfig, tasks: Mapping[str, Task], names: Sequence[str]
) -> list[PlannedRollout]:
    """Return all attempts at the named tasks and then all chains, in the order of the results."""
    chains = [PlannedChain(seed) for seed in evaluation_seeds(settings.first_seed, settings.chains)]
    return [*plan_attempts(settings, tasks, names), *chains]


def plan_attempts(
    settings: EvaluateConfig, tasks: Mapping[str, Task], names: Sequence[str]
) -> list[PlannedAttempt]:
    """Return all attempts, condition by condition; within a condition, seed by seed.

    Attempts with swapped words are planned only for instructions that hold a word to swap.
    """
    attempts = []
    for condition in (STANDARD, *settings.controls):
        episodes = settings.episodes
        if condition != STANDARD:
            episodes = settings.control_episodes or settings.episodes
        for seed in evaluation_seeds(settings.first_seed, episodes):
            for name in names:
                instruction = tasks[name].instruction("evaluation", seed)
                if condition == SWAPPED:
                    swapped = swap_words(instruction, settings.swap)
                    if swapped == instruction:
                        continue
                    instruction = swapped
                attempts.append(PlannedAttempt(condition, tasks[name].name, seed, instruction))
    return attempts


def evaluation_seeds(first: int, count: int) -> range:
    """Return `count` seeds of evaluations; no demonstration uses these seeds."""
    return range(first, first + count)


def swap_words(instruction: str, words: Sequence[str]) -> str:
    """Replace each of `words` in the instruction by the next of them, and the last by the first.

    Only whole words are replaced; upper and lower case do not matter.
    """
    successor = dict(zip(map(str.lower, words), [*words[1:], words[0]], strict=True))
    pattern = rf"\b({'|'.join(map(re.escape, words))})\b"
    return re.sub(
        pattern, lambda match: successor[match[0].lower()], instruction, flags=re.IGNORECASE
    )


def planned_rollout(result: Result) -> PlannedRollout:
    """Return the attempt or chain of the plan to which a result belongs."""
    if isinstance(result, ChainResult):
        return PlannedChain(result.seed)
    return PlannedAttempt(result.condition, result.task, result.seed, result.instruction)


def task_names(
    evaluated: Sequence[str], demonstrated: Sequence[str], tasks: Mapping[str, Task]
) -> list[str]:
    """Return the tasks of [evaluate], else those of [demonstrations], else those by default."""
    return list(evaluated or demonstrated) or default_tasks(tasks)


def recipe_mistakes(
    settings: EvaluateConfig, demonstrated: Sequence[str], tasks: Mapping[str, Task]
) -> Iterator[str]:
    """Yield a line for each mismatch between the recipe and the environment's tasks.

    demonstrated: names of the tasks in [demonstrations].
    """
    names = {"demonstrations": demonstrated, "evaluate": settings.tasks}
    unknown = [(section, name) for section in names for name in names[section] if name not in tasks]
    for section, name in unknown:
        suggestion = did_you_mean(name, list(tasks))
        yield f"{section}.tasks: the environment has no task '{name}'{suggestion}"
    if unknown or SWAPPED not in settings.controls:
        return
    attempts = plan_attempts(settings, tasks, task_names(settings.tasks, demonstrated, tasks))
    if not any(attempt.condition == SWAPPED for attempt in attempts):
        words = ", ".join(settings.swap)
        yield f"evaluate.swap: none of the instructions holds any of the words {words}"


def describe_protocol(settings: EvaluateConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return, as plain data, the settings of the evaluation on which its results depend."""
    values = asdict(settings)
    renamed = {key: dict(named) for key, named in asdict(settings.new_names).items() if named}
    return {
        "episodes": values["episodes"],
        "chains": values["chains"],
        "execute": values["replan_steps"],
        "lanes": values["num_envs"],
        "control_episodes": values["control_episodes"],
        **{key: list(values[key]) for key in ("controls", "swap")},
        **({"store": settings.store} if settings.store else {}),
        **({"names": renamed} if renamed else {}),
        "tasks": list(names),
        "first_seed": values["first_seed"],
        "success": "the environment called the task done after any step, "
        "within the task's max_steps",
    }
