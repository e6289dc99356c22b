"""The noise of denoising diffusion (Ho et al. 2020): how much there is at each step of training.

At step t the noisy chunk is x = signal(t) * actions + noise(t) * epsilon, where signal(t) is the
square root of a product of 1 - beta, and the squares of signal and noise add up to 1. Steps, betas
and their names are those of the library diffusers, so that published policies fit.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from plugins.heads.denoising.layers import waves

Betas = Literal["linear", "squaredcos_cap_v2"]
Prediction = Literal["epsilon", "v_prediction", "sample"]


def make_alphas_cumprod(betas: Betas, steps: int, first: float, last: float) -> Tensor:
    """Return the square of the signal at each step (steps), float32.

    betas: "linear", from `first` to `last` (Ho et al. 2020); "squaredcos_cap_v2", such that the
        signal falls as a cosine (Nichol and Dhariwal 2021), no beta above 0.999.
    """
    if betas == "linear":
        values = torch.linspace(first, last, steps, dtype=torch.float32)
    else:

        def squared_signal(share: float) -> float:
            return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

        values = torch.tensor(
            [
                min(1 - squared_signal((t + 1) / steps) / squared_signal(t / steps), 0.999)
                for t in range(steps)
            ],
            dtype=torch.float32,
        )
    return (1 - values).cumprod(0)


def target_of(
    prediction: Prediction, actions: Tensor, epsilon: Tensor, signal: Tensor, noise: Tensor
) -> Tensor:
    """Return what the network must output: the noise, the actions, or v (Salimans and Ho 2022)."""
    if prediction == "v_prediction":
        return signal * epsilon - noise * actions
    return epsilon if prediction == "epsilon" else actions


def actions_and_noise(
    prediction: Prediction, output: Tensor, x: Tensor, signal: float, noise: float
) -> tuple[Tensor, Tensor]:
    """Return the actions and the epsilon that x consists of, if the network's output is right."""
    if prediction == "v_prediction":
        return signal * x - noise * output, signal * output + noise * x
    if prediction == "epsilon":
        return (x - noise * output) / signal, output
    return output, (x - signal * output) / noise


def encode_step(step: Tensor, width: int) -> Tensor:
    """Steps (...) -> sines and cosines (... width) of 1 to 1/10,000 radians per step.

    They are the positions of Vaswani et al. (2017) in Diffusion Policy's order and precision.
    """
    count = width // 2
    exponent = torch.arange(count, device=step.device) * -(math.log(10_000) / (count - 1))
    return waves(step[..., None] * exponent.exp())
