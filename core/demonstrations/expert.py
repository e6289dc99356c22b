"""One demonstration: an expert that is disturbed while it works, recorded with the actions that it
wanted.

Disturbing the expert and keeping its own actions as labels shows a policy how to come back from
where its mistakes
will take it (DART: Laskey et al., "Noise Injection for Robust Imitation Learning", 2017).
"""

from zlib import crc32

import numpy as np

from core.environments.environment import Environment, Observation
from core.episodes.episode import ActionConvention, Episode

PERSISTENCE = (
    0.8  # of a disturbance from one step to the next: half of it is left after three steps
)


def demonstrate(environment: Environment, task: str, seed: int, noise: float) -> Episode | None:
    """Let the expert do a task; return the episode "<task>/<seed>", or None where it did not
    succeed in time.

    noise: standard deviation of the disturbances, in the action's own units. Frame t is what is
    seen before action t, and the last action, a gripper that closes for example, is the one that
    completed the task.
    """
    environment.reset(task, seed)
    convention, limit = environment.info.action, environment.tasks[task].max_steps
    seen: list[Observation] = []
    wanted: list[np.ndarray] = []
    for disturbance in disturbances(convention, task, seed, noise, limit):
        seen.append(environment.observe())
        wanted.append(np.array(environment.expert(), np.float32))
        if environment.step(executed(wanted[-1], disturbance, convention)):
            return _episode(environment, task, seed, seen, np.stack(wanted))
    return None


def disturbances(
    convention: ActionConvention, task: str, seed: int, noise: float, steps: int
) -> np.ndarray:
    """Return what is added to each action, (steps A) float32: a function of the arguments, zero for
    grippers.

    A stationary first-order autoregressive process: white noise averages out within a few steps,
    and so would the mistakes that the demonstration is to show the way back from.
    """
    fresh = np.random.default_rng([crc32(task.encode()), seed]).standard_normal(
        (steps, convention.dim)
    )
    drift = fresh.copy()
    for t in range(1, steps):
        drift[t] = PERSISTENCE * drift[t - 1] + (1 - PERSISTENCE**2) ** 0.5 * fresh[t]
    drift[:, [gripper.dimension for gripper in convention.grippers]] = 0
    return (noise * drift).astype(np.float32)


def executed(
    wanted: np.ndarray, disturbance: np.ndarray, convention: ActionConvention
) -> np.ndarray:
    """Return the disturbed action (A); a relative one stays within [-1, 1] where it was disturbed."""
    disturbed = wanted + disturbance
    if convention.mode == "delta":
        disturbed = np.clip(disturbed, -1, 1)
    return np.where(disturbance == 0, wanted, disturbed)


def _episode(
    environment: Environment, task: str, seed: int, seen: list[Observation], actions: np.ndarray
) -> Episode:
    return Episode(
        id=f"{task}/{seed}",
        task=task,
        instruction=environment.tasks[task].instruction("demonstration", seed),
        images={
            name: np.stack([observation.images[name] for observation in seen])
            for name in environment.info.cameras
        },
        actions=actions,
        proprio=np.stack([observation.proprio for observation in seen]),
        features={
            name: np.stack([observation.features[name] for observation in seen])
            for name in environment.info.features
        },
    )
