"""Normalisation of actions and proprioception, and its inverse; checkpoints hold normalisers.

Normalisers are fitted in core/loading/opening.py and applied in core/loading/mixture.py.
While acting, core/rollout/actor.py normalises proprioception and undoes the normalisation of
actions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from core.episodes.episode import ActionConvention
from core.episodes.statistics import Statistics
from core.errors import DataError

Method = Literal["none", "clip_range", "min_max", "quantile", "quantile_clipped", "mean_std"]
ProprioMethod = Literal["mean_std", "min_max"]
Array = TypeVar("Array", np.ndarray, Tensor)
T = TypeVar("T")

BOUNDED: tuple[Method, ...] = ("clip_range", "min_max", "quantile_clipped")
# A dimension whose spread is less than about TINY counts as constant. Its mean is subtracted, but
# the dimension is not divided by its spread.
TINY = 1e-6


@dataclass(frozen=True)
class Affine:
    """The map y = (x - offset) * scale, with an offset and a scale for each dimension."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, offset: np.ndarray, scale: np.ndarray) -> Self:
        """Make the map from an offset (D) and a scale (D)."""
        return cls(tuple(offset.tolist()), tuple(scale.tolist()))

    def forward(self, x: Array) -> Array:
        """(... D) x -> (... D) y."""
        y: Array = (x - _like(x, self._arrays[0])) * _like(x, self._arrays[1])
        return y

    def backward(self, y: Array) -> Array:
        """(... D) y -> (... D) x."""
        x: Array = y / _like(y, self._arrays[1]) + _like(y, self._arrays[0])
        return x

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.offset, np.float32), np.array(self.scale, np.float32)


@dataclass(frozen=True)
class TwoState:
    """A gripper dimension that is normalised to 1 (open) and 0 (closed).

    closed, open: the gripper's two values in the dataset.
    """

    dimension: int
    closed: float
    open: float


@dataclass(frozen=True)
class Normalizer:
    """Normalises actions: an affine map per dimension, then clipping for some methods.

    The value of a gripper with two states becomes 0 (closed) or 1 (open).

    method: how the map was fitted. The methods in BOUNDED also clip to [-1, 1].
    affine: the map, with one entry per dimension.
    binary: the grippers with two states.
    """

    method: Method
    affine: Affine
    binary: tuple[TwoState, ...] = ()

    @classmethod
    def fit(
        cls,
        statistics: Statistics,
        convention: ActionConvention,
        method: Method,
        clip_range: tuple[float, float] = (-1.0, 1.0),
        constant: Sequence[int] = (),
    ) -> Self:
        """Fit to the statistics of a store's actions.

        method: how the map is fitted, for all dimensions except grippers:
            "none"        leaves the numbers as they are
            "clip_range"  clips to `clip_range`, which it maps to [-1, 1] (RoboVLMs: -0.65 to 0.65)
            "min_max"     maps the observed range to [-1, 1]
            "quantile"    maps the 1 % and 99 % quantiles to -1 and 1, without clipping (openpi)
            "quantile_clipped"  does the same, and clips to [-1, 1] (OpenVLA)
            "mean_std"    maps to mean 0 and standard deviation 1
        With the last four methods, a constant dimension becomes 0.
        constant: dimensions whose changes are noise: with every method, their mean is subtracted,
            and they are not stretched.

        A gripper is mapped by its closed and open values in `convention`. A binary gripper's values
        become 0 (closed) and 1 (open). A continuous gripper's range [closed, open] is mapped to
        [-1, 1], except with "none", which leaves it as it is.

        Raises DataError if the statistics and the convention differ in the number of dimensions.
        """
        if statistics.dim != convention.dim:
            raise DataError(
                f"the statistics have {statistics.dim} action dimensions, the convention has "
                f"{convention.dim}; import the data again"
            )
        offset, scale = _fit(statistics, method, clip_range)
        _leave_unscaled(offset, scale, statistics, constant)
        binary = []
        for gripper in convention.grippers:
            d, span = gripper.dimension, gripper.open - gripper.closed
            if gripper.kind == "binary":
                offset[d], scale[d] = gripper.closed, 1 / span
                binary.append(TwoState(d, gripper.closed, gripper.open))
            elif method != "none":
                offset[d], scale[d] = (gripper.closed + gripper.open) / 2, 2 / span
        return cls(method, Affine.of(offset, scale), tuple(binary))

    def normalize(self, x: Array) -> Array:
        """(... A) float in the dataset's units -> (... A) normalised."""
        y = self.affine.forward(x)
        if self.method in BOUNDED:
            y = y.clip(-1, 1)
        for gripper in self.binary:
            y[..., gripper.dimension] = y[..., gripper.dimension] > 0.5
        return y

    def unnormalize(self, y: Array) -> Array:
        """(... A) normalised -> (... A) in the dataset's units.

        For a binary gripper, the normalised number is the probability that the gripper is open.
        Above 0.5, the gripper's open value is returned; otherwise its closed value.
        """
        x = self.affine.backward(y)
        for gripper in self.binary:
            is_open = y[..., gripper.dimension] > 0.5
            x[..., gripper.dimension] = is_open * (gripper.open - gripper.closed) + gripper.closed
        return x

    def to_json(self) -> dict[str, Any]:
        """Return the normaliser as dictionaries, tuples, numbers and texts."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Make the normaliser from the result of `to_json`; raises DataError for other data."""
        return _from_json(cls, data)


@dataclass(frozen=True)
class ProprioNormalizer:
    """Normalises proprioception by an affine map per dimension; a constant becomes 0."""

    affine: Affine

    @classmethod
    def fit(
        cls,
        statistics: Statistics,
        constant: Sequence[int] = (),
        method: ProprioMethod = "mean_std",
    ) -> Self:
        """Fit to the statistics of a store's proprioception, which may have no dimensions.

        method: "mean_std" maps to mean 0 and standard deviation 1, "min_max" the observed range to
            [-1, 1], without clipping.
        constant: dimensions whose changes are noise: their mean is subtracted, and they are not
            stretched.
        """
        offset, scale = _fit(statistics, method)
        _leave_unscaled(offset, scale, statistics, constant)
        return cls(Affine.of(offset, scale))

    def normalize(self, x: Array) -> Array:
        """(... P) float in the dataset's units -> (... P) normalised."""
        return self.affine.forward(x)

    def to_json(self) -> dict[str, Any]:
        """Return the normaliser as dictionaries, tuples, numbers and texts."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Make the normaliser from the result of `to_json`; raises DataError for other data."""
        return _from_json(cls, data)


def _like(x: Array, values: np.ndarray) -> Array:
    return values if isinstance(x, np.ndarray) else x.new_tensor(values)


def _from_json(cls: type[T], data: Any) -> T:
    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        raise DataError(
            f"this is no normaliser: {error.errors()[0]['msg']}; take it from a checkpoint"
        ) from error


def _fit(
    statistics: Statistics, method: Method, clip_range: tuple[float, float] = (-1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Return the offset (D) and the scale (D) of the affine map."""
    dim = statistics.dim
    if method == "none":
        return np.zeros(dim), np.ones(dim)
    if method == "mean_std":
        std = statistics.std
        return statistics.mean.copy(), np.where(std > TINY, 1 / np.maximum(std, TINY), 1.0)
    if method == "clip_range":
        low, high = np.full(dim, clip_range[0]), np.full(dim, clip_range[1])
    elif method == "min_max":
        low, high = statistics.min, statistics.max
    else:
        low, high = statistics.quantile(0.01), statistics.quantile(0.99) + TINY
    spread = high - low
    varies = spread > 2 * TINY
    offset = np.where(varies, (low + high) / 2, statistics.mean)
    scale = np.where(varies, 2 / np.maximum(spread, TINY), 1.0)
    return offset, scale


def _leave_unscaled(
    offset: np.ndarray, scale: np.ndarray, statistics: Statistics, dimensions: Sequence[int]
) -> None:
    """Change the affine map of some dimensions, in place: their mean is subtracted, and no more."""
    chosen = list(dimensions)
    offset[chosen], scale[chosen] = statistics.mean[chosen], 1.0
