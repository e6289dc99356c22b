"""How long a policy needs for one action chunk of one robot."""

from statistics import median
from time import perf_counter

import numpy as np

from core.environments.environment import Observation
from core.episodes.episode import StoreInfo
from core.rollout.actor import Actor

WARM_UP, MEASURED = 3, 9


def latency_ms(actor: Actor, instruction: str) -> float:
    """Return the median duration in milliseconds of a policy step of a single row.

    What the cameras show does not matter to it, so all observations are zeros. The measured steps
    follow each other, so that a policy with a memory has one. The actor itself is not changed.
    """
    observation = blank_observation(actor.info)
    state = actor.reset(actor.start(1), {0: 0})
    durations = []
    for _ in range(WARM_UP + MEASURED):
        began = perf_counter()
        _, _, state = actor.step_rows([observation], [instruction], state)
        durations.append(perf_counter() - began)
    return 1e3 * median(durations[WARM_UP:])


def blank_observation(info: StoreInfo) -> Observation:
    """Return an observation of zeros, with everything that the policy was trained on."""
    return Observation(
        images={
            name: np.zeros((camera.height, camera.width, 3), np.uint8)
            for name, camera in info.cameras.items()
        },
        proprio=np.zeros(len(info.proprio), np.float32),
        features={
            name: np.zeros(feature.shape, feature.dtype) for name, feature in info.features.items()
        },
    )
