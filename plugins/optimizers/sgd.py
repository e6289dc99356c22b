"""Stochastic gradient descent with momentum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt

from core import Register, hookimpl


@dataclass(frozen=True)
class SGDConfig:
    """Gradient descent with momentum; its learning rates are far above those of Adam."""

    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """share of the previous step's direction that is kept; 0 means no momentum."""
    nesterov: bool = False
    """look ahead along the momentum (Sutskever et al. 2013)."""

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov has no effect with momentum = 0; drop one of the two")


def build_sgd(config: SGDConfig, *, groups: Sequence[dict[str, Any]]) -> torch.optim.SGD:
    """Gradient descent with momentum (Sutskever et al. 2013), of PyTorch.

    Weight decay is added to the gradient, so it goes through the momentum.

    groups: parameter groups with learning rates and weight decays; they become the optimiser's own.
    """
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov)


@hookimpl
def register_optimizers(register: Register) -> None:
    """Register "sgd"."""
    register("sgd", SGDConfig, build_sgd)
