"""Observations on their way to the policy: what does not fit is refused, the rest becomes a batch.

A picture of another dtype, range, size or layout looks right to a network, which then acts on
something else than it was trained on. So every observation is held against the description of the
training data before the policy acts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from core.contracts.batch import Batch
from core.environments.environment import Observation
from core.episodes.episode import Camera, StoreInfo
from core.episodes.normalization import ProprioNormalizer
from core.errors import DataError, did_you_mean


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
    lines = []
    for row, (observation, instruction) in enumerate(zip(observations, instructions, strict=True)):
        where = "observation" if len(observations) == 1 else f"observation {row}"
        lines += [f"{where}: {line}" for line in _differences(observation, info)]
        if not isinstance(instruction, str):
            lines.append(f"{where}: its instruction is {_describe(instruction)}; give a text")
    if lines:
        raise DataError("\n".join(lines))


def batch_of(
    observations: Sequence[Observation],
    instructions: Sequence[str],
    info: StoreInfo,
    proprio_normalizer: ProprioNormalizer,
    embodiment: int,
) -> Batch:
    """Return a batch (B 1 ...) on the CPU: one frame for each row, its proprioception normalised.

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
        normalized = proprio_normalizer.normalize(measurements.astype(np.float32))
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
    )


def _differences(observation: Observation, info: StoreInfo) -> Iterator[str]:
    """Yield a line for each difference between an observation and the training data."""
    for name, camera in info.cameras.items():
        if name not in observation.images:
            yield f"no camera '{name}'{did_you_mean(name, list(observation.images))}"
            continue
        image, shape = observation.images[name], (camera.height, camera.width, 3)
        is_array = isinstance(image, np.ndarray)
        if not is_array or image.shape != shape or image.dtype != np.uint8:
            yield (
                f"camera '{name}' shows {_describe(image)}; the policy was trained on uint8 "
                f"{shape}, rows, columns and RGB; {_remedy(image, camera)}"
            )
    if info.proprio:
        yield from _differences_of_proprio(observation.proprio, info.proprio)
    for name, feature in info.features.items():
        array = observation.features.get(name)
        if array is None or array.shape != feature.shape or array.dtype != feature.dtype:
            yield (
                f"feature '{name}' shows {_describe(array)}; the policy was trained on {feature}; "
                "give it that dtype and shape"
            )


def _differences_of_proprio(proprio: Any, names: Sequence[str]) -> Iterator[str]:
    """Yield a line if proprioception (P) is missing, has another shape, or is not finite."""
    expected = f"the policy was trained on ({len(names)},): {', '.join(names)}"
    if proprio is None:
        yield f"no proprio; {expected}; give these numbers"
    elif np.shape(proprio) != (len(names),):
        yield f"proprio has shape {np.shape(proprio)}; {expected}; give these numbers in this order"
    elif np.asarray(proprio).dtype.kind not in "fiu":
        yield f"proprio is {_describe(proprio)}; {expected}; give numbers"
    elif not np.isfinite(proprio).all():
        pairs = zip(names, proprio, strict=True)
        broken = [f"{name} = {x}" for name, x in pairs if not np.isfinite(x)]
        yield f"proprio is not finite: {', '.join(broken)}; mend the sensor, or hold its last value"


def _remedy(image: Any, camera: Camera) -> str:
    """Say how to turn an image into one that the policy was trained on."""
    if not isinstance(image, np.ndarray):
        return "make it an array: np.asarray(image)"
    size = (camera.height, camera.width)
    if image.shape == (1, *size, 3):
        return "leave out its first dimension: image[0]"
    if image.shape in (size, (*size, 1)):
        return "repeat its grey values: np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)"
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]):
        if image.ndim == 3 and image.shape[2] == 4:
            return "leave out its fourth channel: image[..., :3]"
        return "give rows, columns and three colours"
    if image.shape[2] != 3:
        return "move its channels last: image.transpose(1, 2, 0)"
    if image.shape[:2] != size:
        return f"resize it to {camera.height} rows and {camera.width} columns"
    return _remedy_of_dtype(image)


def _remedy_of_dtype(image: np.ndarray) -> str:
    """Say how to turn the numbers of an image into bytes from 0 to 255."""
    if image.dtype.kind == "f" and image.size and np.isfinite(image).all():
        low, high = float(image.min()), float(image.max())
        if low >= 0 and high <= 1:
            return "multiply it by 255, and cast it: (image * 255).round().astype(np.uint8)"
        if low >= -1 and high <= 1:
            return "map -1 to 0 and 1 to 255: ((image + 1) * 127.5).round().astype(np.uint8)"
    return "cast it, if its numbers lie from 0 to 255: image.round().astype(np.uint8)"


def _describe(x: Any) -> str:
    """Say what was given: dtype and shape of an array, or the type of anything else."""
    if x is None:
        return "nothing"
    if isinstance(x, np.ndarray | np.generic):
        return f"{x.dtype} {x.shape}"
    return f"an object of type {type(x).__name__}"
