"""One demonstration: an expert acts under disturbances, and its undisturbed actions are recorded.

The mistakes of a trained policy lead to states like those after a disturbance. The expert's actions
in these states show the policy how to return to the task (DART: Laskey et al., "Noise Injection for
Robust Imitation Learning", 2017).
"""

from zlib import crc32

import numpy as np

from core.environments.checked import expert_action, observe, reset, step
from core.environments.environment import Environment, Observation, StepResult
from core.environments.observations import copy_of
from core.episodes.episode import ActionConvention, Episode
from core.errors import DataError

# Correlation between the disturbances of successive steps. The disturbances of steps t and t + 3
# have a correlation of 0.8 ** 3, which is about a half.
PERSISTENCE = 0.8


def demonstrate(environment: Environment, task: str, seed: int, noise: float) -> Episode | None:
    """Let the expert do a task; return episode "<task>/<seed>", or None if the expert failed.

    It also failed if the environment ended the episode without success. At a task that has no
    success, the expert fails only then.

    noise: standard deviation of the disturbances, in the units of the action.

    Frame t is the observation before action t. The last action is the action that completed the
    task, such as closing a gripper.

    Raises DataError, with the step and the line of the environment's own code, if a method of the
    environment returns something else than it must.
    """
    reset(environment, task, seed)
    convention, max_steps = environment.info.action, environment.tasks[task].max_steps
    observations: list[Observation] = []
    actions: list[np.ndarray] = []
    result = StepResult()
    for number, disturbance in enumerate(disturbances(convention, task, seed, noise, max_steps)):
        try:
            observations.append(copy_of(observe(environment)))
            actions.append(expert_action(environment))
            result = step(environment, disturb(actions[-1], disturbance, convention))
        except DataError as error:
            raise DataError(f"after {number} steps: {error}") from error
        if result.done:
            break
    if not environment.tasks[task].is_demonstrated(result):
        return None
    return Episode(
        id=f"{task}/{seed}",
        task=task,
        instruction=environment.tasks[task].instruction("demonstration", seed),
        images={
            name: np.stack([observation.images[name] for observation in observations])
            for name in environment.info.cameras
        },
        actions=np.stack(actions),
        proprio=np.stack([observation.proprio for observation in observations]),
        features={
            name: np.stack([observation.features[name] for observation in observations])
            for name in environment.info.features
        },
    )


def disturbances(
    convention: ActionConvention, task: str, seed: int, noise: float, steps: int
) -> np.ndarray:
    """Return the disturbances of all actions, (steps A) float32; those of grippers are zero.

    The disturbances follow a stationary first-order autoregressive process and depend on the
    arguments alone. Independent disturbances (white noise) would average out within a few steps,
    and the expert would have nothing to correct.
    """
    generator = np.random.default_rng([crc32(task.encode()), seed])
    white_noise = generator.standard_normal((steps, convention.dim))
    drift = white_noise.copy()
    for t in range(1, steps):
        drift[t] = PERSISTENCE * drift[t - 1] + (1 - PERSISTENCE**2) ** 0.5 * white_noise[t]
    drift[:, [gripper.dimension for gripper in convention.grippers]] = 0
    return (noise * drift).astype(np.float32)


def disturb(
    action: np.ndarray, disturbance: np.ndarray, convention: ActionConvention
) -> np.ndarray:
    """Return the action (A) plus its disturbance.

    If the action's mode is "delta", the disturbed dimensions are clipped to [-1, 1].
    """
    total = action + disturbance
    if convention.mode == "delta":
        total = np.clip(total, -1, 1)
    return np.where(disturbance == 0, action, total)
