"""AdamW, the optimiser of a recipe that names none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt

from core import Register, hookimpl


@dataclass(frozen=True)
class AdamWConfig:
    """Adam with decoupled weight decay; its two decay rates are `betas` in [train]."""

    eps: Annotated[float, Gt(0)] = 1e-8
    """number added to the denominator of each update."""


def build_adamw(
    config: AdamWConfig, *, groups: Sequence[dict[str, Any]], betas: tuple[float, float]
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), of PyTorch.

    groups: parameter groups with learning rates and weight decays; they become the optimiser's own.
    betas: decay rates of the running averages of the gradient and of the squared gradient.
    """
    return torch.optim.AdamW(groups, betas=betas, eps=config.eps)


@hookimpl
def register_optimizers(register: Register) -> None:
    """Register "adamw"."""
    register("adamw", AdamWConfig, build_adamw)
