"""One optimiser over all parts, with a learning rate and a weight decay for each."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from core.policy.policy import Policy
from core.recipe.recipe import PARTS, Recipe
from core.recipe.sections import TrainConfig
from core.registry.part_settings import PartSettings


def modules_of(policy: Policy) -> dict[str, nn.Module]:
    """The five parts, the projections between their widths and auxiliary heads, in the order in
    which data flows.
    """
    vision, text, *others = PARTS
    modules = {name: getattr(policy, name) for name in (vision, text, "projections", *others)}
    return modules | {f"auxiliary {label}": head for label, head in policy.auxiliary.items()}


def build_optimizer(policy: Policy, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over every trainable parameter; weight decay spares vectors (biases, norms), as is
    usual.
    """
    groups = [
        group
        for name, module in modules_of(policy).items()
        for group in _groups(name, module, recipe)
    ]
    return torch.optim.AdamW(groups, lr=recipe.train.learning_rate, betas=recipe.train.betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, train: TrainConfig) -> float:
    """Set every group's learning rate for the step after `step` done ones; return the schedule's
    factor.

    The schedule has no state: it is a function of the step, so resuming needs nothing but the step.
    """
    factor = schedule_factor(step, train)
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor
    return factor


def schedule_factor(step: int, train: TrainConfig) -> float:
    """Linear warm-up, then constant, and at last down to zero along a line or a cosine; in [0, 1].

    With a short decay this is the warmup-stable-decay schedule (Hu et al. 2024).
    """
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    falling = train.decay * max(1, train.steps - train.warmup_steps)
    progress = max(0.0, 1.0 - (train.steps - step) / falling)
    match train.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))


def _groups(name: str, module: nn.Module, recipe: Recipe) -> Iterator[dict[str, Any]]:
    parts = [
        *recipe.parts.items(),
        *((f"auxiliary {label}", part) for label, part in recipe.auxiliary.items()),
    ]
    settings = next((part.settings for known, part in parts if known == name), PartSettings())
    rate = recipe.train.learning_rate if settings.learning_rate is None else settings.learning_rate
    decay = recipe.train.weight_decay if settings.weight_decay is None else settings.weight_decay
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
    for parameters, decayed in ((matrices, decay), (vectors, 0.0)):
        if parameters:
            yield {
                "part": name,
                "params": parameters,
                "lr": rate,
                "full_lr": rate,
                "weight_decay": decayed,
            }
