"""Samplers of denoising diffusion, as tables of steps that are computed once.

Each step replaces the noisy chunk x by a sum of five tensors, and the samplers differ only in the
factors. So no step of a sampler computes anything but the network and this sum.

All three follow the defaults of the library diffusers, which Diffusion Policy and its kin use.
DDPM and DDIM visit the steps 0, n, 2n, ... of training, n being the number of steps of training
divided by that of the sampler, rounded down, and end at the actions ("leading" spacing, no offset,
last signal 1). DPM-Solver++ visits steps equally spaced from the last step of training to the
first, without the first ("linspace"), and ends at the actions (last sigma 0). Factors are computed
in float32, as there: small betas leave few digits of 1 - alpha, and published policies were tried
with those.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

Sampler = Literal["ddpm", "ddpm_fixed_large", "ddim", "dpm_solver"]


@dataclass(frozen=True)
class Step:
    """One step of a sampler.

    time: the step of training at whose noise x is.
    signal, noise: of x, as in plugins/heads/denoising/schedule.py.
    of_x, of_actions, of_epsilon: factors of x, and of the actions and the noise that the network
        finds in it.
    of_earlier: factor of the actions that the network found in the step before.
    of_fresh: factor of fresh noise.
    """

    time: int
    signal: float
    noise: float
    of_x: float = 0.0
    of_actions: float = 0.0
    of_epsilon: float = 0.0
    of_earlier: float = 0.0
    of_fresh: float = 0.0


def ddpm_steps(alphas_cumprod: np.ndarray, count: int, *, fixed_large: bool = False) -> list[Step]:
    """Ancestral sampling (Ho et al. 2020), with the smaller or the larger of their variances.

    The last step adds no noise, whichever it is.
    """
    times, alpha, following = _leading(alphas_cumprod, count)
    kept = alpha / following
    smaller = (1 - following) / (1 - alpha) * (1 - kept)
    variance = np.where(smaller > 0, 1 - kept, 0) if fixed_large else smaller
    factors = {
        "of_x": np.sqrt(kept) * (1 - following) / (1 - alpha),
        "of_actions": np.sqrt(following) * (1 - kept) / (1 - alpha),
        "of_fresh": np.sqrt(variance),
    }
    return _table(times, alpha, factors)


def ddim_steps(alphas_cumprod: np.ndarray, count: int) -> list[Step]:
    """Deterministic sampling (Song et al. 2021, eta 0)."""
    times, alpha, following = _leading(alphas_cumprod, count)
    factors = {"of_actions": np.sqrt(following), "of_epsilon": np.sqrt(1 - following)}
    return _table(times, alpha, factors)


def dpm_solver_steps(alphas_cumprod: np.ndarray, count: int) -> list[Step]:
    """DPM-Solver++ (Lu et al. 2022): the multistep solver of order 2 that predicts the actions.

    Order 2 is that of the midpoint variant; the first and the last step have order 1.
    """
    times = np.linspace(0, len(alphas_cumprod) - 1, count + 1).round()[:0:-1].astype(int)
    alpha = alphas_cumprod[times]
    signal, noise = np.sqrt(alpha), np.sqrt(1 - alpha)
    # half the logarithm of the signal-to-noise ratio, which is infinite at the actions
    size = np.diff(np.log(signal / noise), append=np.float32(np.inf))
    gain = -np.append(signal[1:], np.float32(1)) * np.expm1(-size)
    # Order 2 also follows the change of the actions since the step before.
    change = np.zeros_like(gain)
    change[1:-1] = size[1:-1] / size[:-2] / 2
    factors = {
        "of_x": np.append(noise[1:], np.float32(0)) / noise,
        "of_actions": gain * (1 + change),
        "of_earlier": -gain * change,
    }
    return _table(times, alpha, factors)


SAMPLERS: dict[Sampler, Callable[[np.ndarray, int], list[Step]]] = {
    "ddpm": ddpm_steps,
    "ddpm_fixed_large": partial(ddpm_steps, fixed_large=True),
    "ddim": ddim_steps,
    "dpm_solver": dpm_solver_steps,
}


def _leading(alphas_cumprod: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps' times, and the squares of the signals before and after each step."""
    times = np.arange(count)[::-1] * (len(alphas_cumprod) // count)
    alpha = alphas_cumprod[times]
    return times, alpha, np.append(alpha[1:], np.float32(1))


def _table(times: np.ndarray, alpha: np.ndarray, factors: Mapping[str, np.ndarray]) -> list[Step]:
    """Return one step for each time; alpha is the square of its signal."""
    columns = {"time": times, "signal": np.sqrt(alpha), "noise": np.sqrt(1 - alpha), **factors}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [Step(**dict(zip(columns, row, strict=True))) for row in rows]
