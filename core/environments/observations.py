"""Holds observations against the description that they must fit, and compares them.

A picture of another dtype, range, size or layout looks right to a network, which then acts on
something else than it was trained on. So every observation is checked: in an environment's process
against what the environment announces, and before a policy acts against the training data. A check
takes about ten microseconds, since it looks at no pixel. The module needs no torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.environments.environment import Observation
from core.episodes.episode import SPARSE, Camera, Feature, StoreInfo
from core.episodes.text import decode_text
from core.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Fit:
    """What an observation must be.

    info: cameras, proprioception and features.
    source: where `info` comes from, for messages: "`info` announces" for example.
    exact: whether nothing else may be there.
    """

    info: StoreInfo
    source: str
    exact: bool

    def differences(self, observation: Any) -> Iterator[str]:
        """Yield a line for each difference: what is there, what is expected, and what to do."""
        if not isinstance(observation, Observation):
            yield f"it is {describe(observation)}; give an Observation"
            return
        yield from self._of_names("camera", "images", observation.images, self.info.cameras)
        yield from self._of_images(observation.images)
        yield from self._of_proprio(observation.proprio)
        yield from self._of_names("feature", "features", observation.features, self.info.features)
        yield from self._of_features(observation.features)

    def _of_names(
        self, kind: str, field: str, given: Any, expected: Mapping[str, Any]
    ) -> Iterator[str]:
        if not isinstance(given, Mapping):
            yield f"`{field}` is {describe(given)}; give {{{kind}: array}}"
            return
        names = [str(name) for name in given]
        missing = [name for name in expected if name not in given]
        for name in missing:
            yield f"no {kind} '{name}'{did_you_mean(name, names)}"
        more = [str(name) for name in given if name not in expected]
        if self.exact and more and not missing:
            known = ", ".join(f"'{name}'" for name in expected) or "none"
            yield f"{kind} '{more[0]}' is one too many; {self.source} {known}; leave it out"

    def _of_images(self, images: Any) -> Iterator[str]:
        for name, camera in self.info.cameras.items():
            if not isinstance(images, Mapping) or name not in images:
                continue
            image, shape = images[name], (camera.height, camera.width, 3)
            is_array = isinstance(image, np.ndarray)
            if not is_array or image.shape != shape or image.dtype != np.uint8:
                yield (
                    f"camera '{name}' shows {describe(image)}; {self.source} uint8 {shape}, "
                    f"rows, columns and RGB; {_remedy(image, camera)}"
                )

    def _of_proprio(self, proprio: Any) -> Iterator[str]:
        names = self.info.proprio
        if not names and (not self.exact or proprio is None):
            return
        expected = f"{self.source} ({len(names)},): {', '.join(names) or 'nothing'}"
        array = as_array(proprio)
        if proprio is None:
            yield f"no proprio; {expected}; give these numbers"
        elif array is None:
            yield f"proprio is {describe(proprio)}; {expected}; give numbers"
        elif array.shape != (len(names),):
            yield f"proprio has shape {array.shape}; {expected}; give these numbers in this order"
        elif names and array.dtype.kind not in "fiu":
            yield f"proprio is {describe(proprio)}; {expected}; give numbers"
        elif not np.isfinite(numbers := as_float32(array)).all():
            broken = [
                f"{name} = {array[d]}"
                for d, name in enumerate(names)
                if not np.isfinite(numbers[d])
            ]
            remedy = "mend the sensor, or hold its last value"
            yield f"proprio is not finite: {', '.join(broken)}; {remedy}"

    def _of_features(self, features: Any) -> Iterator[str]:
        for name, feature in self.info.features.items():
            if not isinstance(features, Mapping) or name not in features:
                continue
            array = features[name]
            is_array = isinstance(array, np.ndarray | np.generic)
            if not is_array or array.shape != feature.shape or array.dtype != feature.dtype:
                yield (
                    f"feature '{name}' shows {describe(array)}; {self.source} {feature}; "
                    "give it that dtype and shape"
                )
            elif fault := _fault_of_numbers(np.asarray(array), feature):
                yield f"feature '{name}' {fault}"


def plain(observation: Observation, info: StoreInfo) -> Observation:
    """Return a fitting observation with nothing but what `info` names, as plain numpy arrays.

    Proprioception becomes float32, and an array of a subclass an `np.ndarray`. Images are not
    copied.
    """
    proprio = as_array(observation.proprio) if info.proprio else np.zeros(0, np.float32)
    assert proprio is not None
    return Observation(
        {name: np.asarray(observation.images[name]) for name in info.cameras},
        as_float32(proprio),
        {name: np.asarray(observation.features[name]) for name in info.features},
    )


def copy_of(observation: Observation) -> Observation:
    """Return a copy, which stays as it is when an environment draws into the same array again."""
    return Observation(
        {name: np.array(image) for name, image in observation.images.items()},
        np.array(observation.proprio),
        {name: np.array(array) for name, array in observation.features.items()},
    )


def changes(first: Observation, second: Observation) -> dict[str, float]:
    """Return {array: largest absolute difference} of two fitting observations that differ.

    NaN in both of them counts as equal, and NaN in one of them as an infinite difference.
    """
    before, after = arrays(first), arrays(second)
    return {
        name: _largest_difference(array, after[name])
        for name, array in before.items()
        if not np.array_equal(array, after[name], equal_nan=array.dtype.kind == "f")
    }


def arrays(observation: Observation) -> dict[str, np.ndarray]:
    """Return all arrays of an observation by the words that messages call them."""
    return {
        **{f"image '{name}'": image for name, image in observation.images.items()},
        "proprio": observation.proprio,
        **{f"feature '{name}'": array for name, array in observation.features.items()},
    }


def as_array(x: Any) -> np.ndarray | None:
    """Return numbers as an array, or None if they are none: a ragged list, for example."""
    if isinstance(x, np.ndarray):
        return np.asarray(x)
    try:
        return np.asarray(x)
    except Exception:  # noqa: BLE001 - an object's own conversion raises any type
        return None


def as_float32(x: np.ndarray) -> np.ndarray:
    """Return real numbers as float32; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float32)


def describe(x: Any) -> str:
    """Say what was given: dtype and shape of an array, or the type of anything else."""
    if x is None:
        return "nothing"
    if isinstance(x, np.ndarray | np.generic):
        return f"{x.dtype} {x.shape}"
    return f"an object of type {type(x).__name__}"


def _largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(first.astype(np.float64) - second.astype(np.float64))
    both = np.isnan(first) & np.isnan(second) if first.dtype.kind == "f" else False
    equal = both | (first == second)  # infinities of one sign are equal, too
    difference = np.where(equal, 0, np.where(np.isnan(difference), np.inf, difference))
    return float(difference.max())


def _fault_of_numbers(array: np.ndarray, feature: Feature) -> str:
    """Say which numbers of a feature a store could not hold; "" if it could hold all."""
    if array.dtype.kind == "f" and feature.meaning not in SPARSE:
        broken = ~np.isfinite(array)
        if broken.any():
            what = f"is not finite, in {broken.sum()} of {array.size} numbers"
            return f"{what}; mend the sensor, or hold its last value"
    if feature.meaning == "text":
        try:
            decode_text(array[None])
        except DataError as error:
            return f"holds no text: {error}"
    return ""


def _remedy(image: Any, camera: Camera) -> str:
    """Say how to turn an image into one that fits."""
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
