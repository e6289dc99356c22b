"""Flow matching: straight paths between actions and noise, and steps along them."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from core import Generator
from plugins.heads.denoising.denoising import Predict
from plugins.heads.denoising.layers import waves

# periods of the fastest and the slowest wave that encodes a time, as in pi0
PERIODS = (4e-3, 4.0)


@dataclass(frozen=True)
class FlowMatchingConfig:
    """How flow matching trains and samples."""

    times: Literal["beta", "uniform", "logit_normal"] = "beta"
    """distribution of the time in training, which is 0 at the actions and 1 at the noise: "beta",
    Beta(1.5, 1), more often near the noise, as in pi0; "uniform"; "logit_normal", more often in the
    middle (Esser et al. 2024).
    """
    integrator: Literal["euler", "midpoint"] = "euler"
    """how a step from noise to actions is made: "euler", with one call of the network, or
    "midpoint", of order 2, with two.
    """
    steps: Annotated[int, Gt(0)] = 10
    """number of steps from noise to actions, all of the same size."""
    clip: bool = True
    """whether sampled actions are clipped to [-1, 1], if `action.normalization` keeps actions
    there; pi0 does not clip.
    """


class FlowMatching:
    """The process of flow matching (Lipman et al. 2023); time is the share of noise.

    On the path x = time * noise + (1 - time) * actions, the network predicts the velocity
    noise - actions. Time runs from 1 to 0 in sampling, as in the code of pi0 and in the library
    diffusers; Lipman et al. and the paper on pi0 (Black et al. 2024) count it the other way round.
    """

    def __init__(self, config: FlowMatchingConfig) -> None:
        self.config = config

    def errors(self, predict: Predict, actions: Tensor, generator: Generator) -> Tensor:
        """Mix actions (B T H A) with noise at random times -> squared errors (B T H A)."""
        noise = generator.normal(*actions.shape)
        time = self.draw_times(actions.shape[:2], generator)
        x = torch.lerp(actions, noise, time[..., None, None])
        return (predict(x, time) - (noise - actions)) ** 2

    def draw_times(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Draw times of a shape (B T), in [0, 1]."""
        if self.config.times == "logit_normal":
            return generator.normal(*shape).sigmoid()
        uniform = generator.uniform(*shape)
        # The distribution function of Beta(1.5, 1) is time ** 1.5. As in pi0, no time is below
        # 0.001, where nothing is left to learn.
        return 0.001 + 0.999 * uniform ** (1 / 1.5) if self.config.times == "beta" else uniform

    def sample(self, predict: Predict, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Turn noise into actions of a shape (B T H A)."""
        x = generator.normal(*shape)
        size = 1 / self.config.steps
        for i in range(self.config.steps):
            time = 1 - i * size
            velocity = predict(x, x.new_full(shape[:2], time))
            if self.config.integrator == "midpoint":
                middle = x - size / 2 * velocity
                velocity = predict(middle, x.new_full(shape[:2], time - size / 2))
            x = x - size * velocity
        return x


def encode_time(time: Tensor, width: int) -> Tensor:
    """Times (...) -> sines and cosines (... width) with periods from 0.004 to 4, as in pi0.

    The phases reach 1,600 radians, so they are computed in float64, where there is float64.
    """
    wide = torch.float32 if time.device.type == "mps" else torch.float64
    shortest, longest = PERIODS
    share = torch.linspace(0, 1, width // 2, dtype=wide, device=time.device)
    period = shortest * (longest / shortest) ** share
    return waves(time[..., None].to(wide) * (2 * math.pi / period))
