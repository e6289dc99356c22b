"""From the units of a dataset to what a network likes, and back. Plain data, so that it travels
with a checkpoint.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from core.episodes.episode import ActionConvention
from core.episodes.statistics import Statistics
from core.errors import DataError

Method = Literal["none", "clip_range", "min_max", "quantile", "mean_std"]
Array = TypeVar("Array", np.ndarray, Tensor)
T = TypeVar("T")

BOUNDED: tuple[Method, ...] = ("clip_range", "min_max")
TINY = 1e-6  # a smaller spread is a constant: it is shifted, never divided by


@dataclass(frozen=True)
class Affine:
    """y = (x - offset) * scale, per dimension."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, offset: np.ndarray, scale: np.ndarray) -> Self:
        """Make it of arrays (D)."""
        return cls(tuple(offset.tolist()), tuple(scale.tolist()))

    def forward(self, x: Array) -> Array:
        """(... D) x -> (... D) y."""
        y: Array = (x - _as(self._arrays[0], x)) * _as(self._arrays[1], x)
        return y

    def backward(self, y: Array) -> Array:
        """(... D) y -> (... D) x."""
        x: Array = y / _as(self._arrays[1], y) + _as(self._arrays[0], y)
        return x

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.offset, np.float32), np.array(self.scale, np.float32)


@dataclass(frozen=True)
class TwoState:
    """A gripper dimension that is normalised to 1 for open and 0 for closed, and its two values in
    the dataset.
    """

    dimension: int
    closed: float
    open: float


@dataclass(frozen=True)
class Normalizer:
    """Of actions: affine per dimension; a bounded method then clips to [-1, 1], and two-state
    grippers become {0, 1}.

    method: the method that it was fitted by.
    affine: one entry per dimension.
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
    ) -> Self:
        """Fit to a store's actions; grippers go by their convention, not by `method`.

        method: of the other dimensions: "none"; "clip_range" clips to `clip_range` and maps it to
        [-1, 1] (RoboVLMs: 0.65 either way); "min_max" maps the range seen to [-1, 1]; "quantile"
        maps the 1 % and 99 % quantiles to -1
        and 1 without clipping (openpi); "mean_std". A continuous gripper is mapped from [closed,
        open] to [-1, 1],
        by "none" left as it is; a binary one becomes {0, 1}. A constant dimension becomes 0.
        Raises DataError if the statistics do not fit the convention.
        """
        if statistics.dim != convention.dim:
            message = f"statistics of {statistics.dim} action dimensions, the convention names {convention.dim}"
            raise DataError(f"{message}; import the data again")
        offset, scale = _fit(statistics, method, clip_range)
        for gripper in convention.grippers:
            d = gripper.dimension
            if gripper.kind == "binary":
                offset[d], scale[d] = gripper.closed, 1 / (gripper.open - gripper.closed)
            elif method != "none":
                offset[d], scale[d] = (
                    (gripper.closed + gripper.open) / 2,
                    2 / (gripper.open - gripper.closed),
                )
        two_state = (g for g in convention.grippers if g.kind == "binary")
        return cls(
            method,
            Affine.of(offset, scale),
            tuple(TwoState(g.dimension, g.closed, g.open) for g in two_state),
        )

    def normalize(self, x: Array) -> Array:
        """(... A) float in the dataset's units -> (... A) normalised."""
        y = self.affine.forward(x)
        if self.method in BOUNDED:
            y = y.clip(-1, 1)
        for gripper in self.binary:
            y[..., gripper.dimension] = y[..., gripper.dimension] > 0.5
        return y

    def unnormalize(self, y: Array) -> Array:
        """(... A) normalised, binary dimensions as probabilities of open -> (... A) in the
        dataset's units.
        """
        x = self.affine.backward(y)
        for gripper in self.binary:
            is_open = y[..., gripper.dimension] > 0.5
            x[..., gripper.dimension] = is_open * (gripper.open - gripper.closed) + gripper.closed
        return x

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Inverse of to_json; raises DataError for anything else."""
        return _from_json(cls, data)


@dataclass(frozen=True)
class ProprioNormalizer:
    """Of proprioception: mean 0 and standard deviation 1; a constant dimension becomes 0."""

    affine: Affine

    @classmethod
    def fit(cls, statistics: Statistics) -> Self:
        """Fit to a store's proprioception, possibly of no dimensions."""
        return cls(Affine.of(*_fit(statistics, "mean_std")))

    def normalize(self, x: Array) -> Array:
        """(... P) float in the dataset's units -> (... P) normalised."""
        return self.affine.forward(x)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Inverse of to_json; raises DataError for anything else."""
        return _from_json(cls, data)


def _as(values: np.ndarray, like: Array) -> Array:
    return values if isinstance(like, np.ndarray) else like.new_tensor(values)


def _from_json(cls: type[T], data: Any) -> T:
    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        raise DataError(
            f"this is no normaliser: {error.errors()[0]['msg']}; take it from a checkpoint"
        ) from error


def _fit(
    seen: Statistics, method: Method, clip_range: tuple[float, float] = (-1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and scale (D)."""
    if method == "none":
        return np.zeros(seen.dim), np.ones(seen.dim)
    if method == "mean_std":
        return seen.mean, np.where(seen.std > TINY, 1 / np.maximum(seen.std, TINY), 1.0)
    low, high = {
        "clip_range": (np.full(seen.dim, clip_range[0]), np.full(seen.dim, clip_range[1])),
        "min_max": (seen.min, seen.max),
        "quantile": (seen.quantile(0.01), seen.quantile(0.99) + TINY),
    }[method]
    spread = high - low
    varies = spread > 2 * TINY
    return np.where(varies, (low + high) / 2, seen.mean), np.where(
        varies, 2 / np.maximum(spread, TINY), 1.0
    )
