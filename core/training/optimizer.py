"""One optimiser for all parts; each part may have its own learning rate and weight decay.

The optimiser is AdamW; no plugin can replace it. Other code relies on two properties of the
optimiser:
- Each parameter group has the keys `part` and `full_lr`. core/training/joint_table.py reads `part`,
  and `set_learning_rate` below reads `full_lr`.
- The optimiser's state consists of tensors, each of which belongs to one parameter.
  core/weights/checkpoint.py saves and loads only such tensors.
"""

from typing import Any

import torch
from torch import nn

from core.policy.policy import Policy
from core.recipe.recipe import PARTS, Recipe
from core.recipe.sections import TrainConfig
from core.registry.part_settings import PartSettings
from core.training.schedule import schedule_factor


def modules_of(policy: Policy) -> dict[str, nn.Module]:
    """Return {name: module} of the policy, in the order in which data flows through the modules.

    The modules are the five parts, the projections between parts of different widths, and the
    auxiliary heads.
    """
    vision, text, *others = PARTS
    modules = {name: getattr(policy, name) for name in (vision, text, "projections", *others)}
    return modules | {f"auxiliary {label}": head for label, head in policy.auxiliary.items()}


def build_optimizer(policy: Policy, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW for all trainable parameters.

    As usual, weight decay applies to matrices and not to vectors (biases, weights of norms).
    """
    train = recipe.train
    settings_of: dict[str, PartSettings] = {
        kind: part.settings for kind, part in recipe.parts.items()
    }
    for label, head in recipe.auxiliary.items():
        settings_of[f"auxiliary {label}"] = head.settings
    groups: list[dict[str, Any]] = []
    for name, module in modules_of(policy).items():
        # the recipe has no settings for projections
        settings = settings_of.get(name, PartSettings())
        rate = train.learning_rate if settings.learning_rate is None else settings.learning_rate
        decay = train.weight_decay if settings.weight_decay is None else settings.weight_decay
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in trainable if parameter.ndim > 1]
        vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
        for parameters, weight_decay in ((matrices, decay), (vectors, 0.0)):
            if parameters:
                groups.append(
                    {
                        "part": name,
                        "params": parameters,
                        "lr": rate,
                        "full_lr": rate,
                        "weight_decay": weight_decay,
                    }
                )
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=train.betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, train: TrainConfig) -> float:
    """Set the learning rates to use after `step` steps; return the factor of the schedule.

    The schedule depends only on the number of steps, so it has no state to save.
    """
    factor = schedule_factor(step, train)
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor
    return factor
