"""Observations on their way to the policy: what fits becomes a batch, the rest is refused."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from core.contracts.batch import Batch, PastActions
from core.environments.environment import Observation
from core.environments.observations import Fit, as_array, as_float32, describe
from core.episodes.episode import StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.errors import DataError


def raise_unless_fit(
    observations: Sequence[Observation], instructions: Sequence[Any], info: StoreInfo
) -> None:
    """Raise DataError unless observations and instructions are as in the training data.

    The error has one line for each difference: what is there, what is expected, and what to do.
    """
    if len(observations) != len(instructions):
        raise DataError(
            f"{len(observations)} observations and {len(instructions)} instructions; "
            "give one instruction for each observation"
        )
    lines, fit = [], Fit(info, "the policy was trained on", exact=False)
    for row, (observation, instruction) in enumerate(zip(observations, instructions, strict=True)):
        where = "observation" if len(observations) == 1 else f"observation {row}"
        lines += [f"{where}: {line}" for line in fit.differences(observation)]
        if isinstance(observation, Observation):
            lines += [f"{where}: {line}" for line in _faults_of_past(observation.past_action, info)]
        if not isinstance(instruction, str):
            lines.append(f"{where}: its instruction is {describe(instruction)}; give a text")
    if lines:
        raise DataError("\n".join(lines))


def batch_of(
    observations: Sequence[Observation],
    instructions: Sequence[str],
    info: StoreInfo,
    action_normalizer: Normalizer,
    proprio_normalizer: ProprioNormalizer,
    embodiment: int,
) -> Batch:
    """Return a batch (B 1 ...) on the CPU: one frame for each row, and its numbers normalised.

    Its token ids are empty, since an actor encodes each instruction once.
    """
    images = {
        name: np.stack([observation.images[name] for observation in observations])
        for name in info.cameras
    }
    features = {
        name: np.stack([observation.features[name] for observation in observations])
        for name in info.features
    }
    proprio = None  # stays None if the policy was trained without proprioception
    if info.proprio:
        measurements = np.stack([observation.proprio for observation in observations])
        normalized = proprio_normalizer.normalize(as_float32(measurements))
        proprio = torch.from_numpy(normalized)[:, None]
    return Batch(
        images={
            name: torch.from_numpy(frames)[:, None].movedim(-1, 2)
            for name, frames in images.items()
        },
        instructions=instructions,
        text_ids=torch.empty(len(observations), 0, dtype=torch.int64),
        text_mask=None,
        proprio=proprio,
        features={name: torch.from_numpy(x)[:, None] for name, x in features.items()},
        embodiment=torch.full((len(observations),), embodiment),
        past=_past_of(observations, info.action.dim, action_normalizer),
    )


def _past_of(observations: Sequence[Observation], dim: int, normalizer: Normalizer) -> PastActions:
    """Return the actions (B 1 A) that were executed before, normalised; zeros where unknown."""
    known = np.array([observation.past_action is not None for observation in observations])
    actions = np.zeros((len(observations), 1, dim), np.float32)
    if known.any():
        executed = np.stack([o.past_action for o in observations if o.past_action is not None])
        actions[known, 0] = normalizer.normalize(as_float32(executed))
    return PastActions(torch.from_numpy(actions), torch.from_numpy(known)[:, None])


def _faults_of_past(action: Any, info: StoreInfo) -> Iterator[str]:
    """Yield a line if the past action of an observation is not finite numbers (A)."""
    if action is None:
        return
    array, dim = as_array(action), info.action.dim
    if array is None or array.shape != (dim,) or array.dtype.kind not in "fiu":
        yield (
            f"past_action is {describe(action)}; the policy's actions are {dim} numbers; "
            "give the action that was executed last, or None at the start of an episode"
        )
    elif not np.isfinite(array).all():
        yield "past_action is not finite; give the action that was executed last"
