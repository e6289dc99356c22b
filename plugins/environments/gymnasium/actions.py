"""From the numbers of a policy to those that an environment of Gymnasium takes, and back."""

from typing import Any

import numpy as np

from core import DataError, did_you_mean
from core.episodes import ActionConvention, Gripper
from plugins.environments.gymnasium.config import GymnasiumConfig
from plugins.environments.gymnasium.observations import one_for_each


class ActionScaling:
    """How a policy's action (A) and the environment's are converted into one another.

    space: the environment's action space.
    convention: what the policy's numbers mean.

    Raises DataError if the space is no vector, or if the configuration does not fit it.
    """

    def __init__(self, config: GymnasiumConfig, space: Any, rate: float) -> None:
        _check_space(space)
        self._scaling, self._dtype = config.scaling, space.dtype
        self._low: np.ndarray = np.asarray(space.low, np.float64)
        self._high: np.ndarray = np.asarray(space.high, np.float64)
        if config.scaling == "normalised" and not np.isfinite([self._low, self._high]).all():
            raise DataError(
                f'environment.scaling: "normalised" needs bounds, but the action space is {space}; '
                'set scaling = "raw"'
            )
        names = config.action_names or tuple(f"action_{d}" for d in range(len(self._low)))
        if len(names) != len(self._low):
            raise DataError(
                f"environment.action_names: {len(names)} names for the {len(self._low)} numbers of "
                f"{space}; give one for each"
            )
        units = one_for_each(config.action_units, len(names), "environment.action_units")
        half = (self._high - self._low) / 2
        scale = half if config.scaling == "normalised" else np.ones(len(names))
        self.convention = ActionConvention(
            names,
            config.mode,
            config.frame,
            "none",
            tuple(float(number) for number in scale),
            rate,
            _grippers(config, names),
            units,
        )

    def to_environment(self, action: np.ndarray) -> np.ndarray:
        """Return the environment's action (A) for a policy's, clipped unless `scaling` is "raw"."""
        if self._scaling == "normalised":
            action = self._low + (np.clip(action, -1, 1) + 1) / 2 * (self._high - self._low)
        if self._scaling != "raw":
            action = np.clip(action, self._low, self._high)
        return np.asarray(action, self._dtype)

    def to_policy(self, action: np.ndarray) -> np.ndarray:
        """Return the policy's action (A) float32 for the environment's."""
        action = np.asarray(action, np.float64)
        if self._scaling != "raw":
            action = np.clip(action, self._low, self._high)
        if self._scaling == "normalised":
            action = (action - self._low) / (self._high - self._low) * 2 - 1
        return np.asarray(action, np.float32)


def _check_space(space: Any) -> None:
    kind = type(space).__name__
    if kind == "Box" and len(space.shape) == 1 and space.dtype.kind == "f":
        return
    advice = {
        "Discrete": "its actions are buttons",
        "MultiDiscrete": "its actions are buttons",
        "MultiBinary": "its actions are buttons",
        "Dict": f"its actions have parts: {', '.join(getattr(space, 'spaces', {}))}",
        "Tuple": "its actions have parts",
    }
    what = advice.get(kind, f"its actions are {getattr(space, 'dtype', '')} {space.shape}")
    raise DataError(
        f"environment.id: the action space is {space}: {what}, and a policy gives one vector of "
        "real numbers; name a wrapper that makes it a Box in environment.wrappers"
    )


def _grippers(config: GymnasiumConfig, names: tuple[str, ...]) -> tuple[Gripper, ...]:
    for name in config.binary:
        if name not in names:
            known = did_you_mean(name, names)
            raise DataError(f"environment.binary: no action is called '{name}'{known}")
    return tuple(
        Gripper(names.index(name), "binary", closed, opened)
        for name, (closed, opened) in config.binary.items()
    )
