"""One optimiser for all parts; each part may have its own learning rate and weight decay.

A plugin builds it, by the name in the recipe's section [optimizer]. The contract of an optimiser:
- It is a torch.optim.Optimizer that holds each parameter of the given groups once.
- Its groups have the keys of the given groups, as they have if it takes these groups or splits
  them. core/training/joint_table.py reads `part`, and `set_learning_rate` below reads `full_lr` and
  sets `lr` before each step.
- Its state consists of tensors, each of which belongs to one parameter, and of nothing else.
  core/weights/checkpoint.py saves and loads these tensors.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import nn

from core.errors import ConfigError
from core.policy.policy import Policy
from core.recipe.contents import PARTS, Recipe
from core.recipe.train_section import TrainConfig
from core.registry.building import build_component
from core.registry.part_settings import PartSettings
from core.training.layer_decay import rate_factors
from core.training.master_weights import MasterWeights
from core.training.roles import roles_of
from core.training.schedule import schedule_factor


def modules_of(policy: Policy) -> dict[str, nn.Module]:
    """Return {name: module} of the policy, in the order in which data flows through the modules.

    The modules are the five parts, the projections between parts of different widths, and the
    auxiliary heads.
    """
    vision, text, *others = PARTS
    modules = {name: getattr(policy, name) for name in (vision, text, "projections", *others)}
    return modules | {f"auxiliary/{label}": head for label, head in policy.auxiliary.items()}


def build_optimizer(policy: Policy, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for all trainable parameters.

    With `train.precision = "bf16-true"`, it changes float32 copies of the parameters.

    Raises ConfigError, naming the plugin, if the optimiser breaks the contract above.
    """
    groups = parameter_groups(policy, recipe)
    if recipe.train.precision == "bf16-true":
        return MasterWeights(partial(_build, recipe), groups)
    return _build(recipe, groups)


def _build(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for parameter groups; raises ConfigError, see above."""
    component = recipe.optimizer.component
    parameters = [parameter for group in groups for parameter in group["params"]]
    offered = {"groups": groups, "betas": recipe.train.betas}
    where = f"optimizer.name: '{component.name}'"
    optimizer = build_component(component, recipe.optimizer.config, offered, where)
    if problem := find_problem(optimizer, parameters):
        raise ConfigError(
            f"{where} of plugin {component.plugin}: {problem}; choose another optimizer, or change "
            "the plugin"
        )
    built: torch.optim.Optimizer = optimizer
    return built


def parameter_groups(policy: Policy, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups of one part, role, weight decay and learning rate.

    As usual, weight decay applies to parameters with two or more dimensions, and not to vectors
    (biases, weights of norms).

    The order of the parameters is that of the groups of version 0.1: part by part, and in each part
    all parameters with weight decay first. The rounding of the gradient's norm depends on the
    order. A part may therefore have several groups with the same role.
    """
    train = recipe.train
    settings_of: dict[str, PartSettings] = {
        kind: part.settings for kind, part in recipe.parts.items()
    }
    for label, head in recipe.auxiliary.items():
        settings_of[f"auxiliary/{label}"] = head.settings
    groups: list[dict[str, Any]] = []
    for name, module in modules_of(policy).items():
        # the recipe has no settings for projections
        settings = settings_of.get(name, PartSettings())
        rate = train.learning_rate if settings.learning_rate is None else settings.learning_rate
        decay = train.weight_decay if settings.weight_decay is None else settings.weight_decay
        roles, factors = roles_of(module), _rate_factors(name, module, settings)
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        kinds = {x: (roles[x], factors.get(x, 1.0)) for x in trainable}
        decayed = [parameter for parameter in trainable if parameter.ndim > 1]
        vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
        for parameters, weight_decay in ((decayed, decay), (vectors, 0.0)):
            for (role, factor), neighbours in groupby(parameters, kinds.__getitem__):
                groups.append(
                    {
                        "part": name,
                        "role": role,
                        "params": list(neighbours),
                        "lr": factor * rate,
                        "full_lr": factor * rate,
                        "weight_decay": weight_decay,
                    }
                )
    return groups


def _rate_factors(
    name: str, module: nn.Module, settings: PartSettings
) -> Mapping[nn.Parameter, float]:
    """Return the factors of learning rates, where `layer_decay` asks for them.

    Raises ConfigError if the part has no blocks.
    """
    if settings.layer_decay is None:
        return {}
    factors = rate_factors(module, settings.layer_decay)
    if factors is None:
        raise ConfigError(f"{name}.layer_decay: this part has no repeated blocks; drop the key")
    return factors


def find_problem(optimizer: object, parameters: Sequence[nn.Parameter]) -> str | None:
    """Return how a plugin's optimiser breaks the contract; None if it keeps it.

    parameters: those that the optimiser was given.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        return f"it built a {type(optimizer).__name__}, which is no torch.optim.Optimizer"
    groups = optimizer.param_groups
    counts = Counter(id(parameter) for group in groups for parameter in group["params"])
    if counts != Counter(map(id, parameters)):
        return "it does not hold each parameter once"
    if any(key not in group for group in groups for key in ("part", "lr", "full_lr")):
        return "its groups lack the keys of the groups that it was given: part, lr, full_lr"
    return None


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, train: TrainConfig) -> float:
    """Set the learning rates to use after `step` steps; return the factor of the schedule.

    The schedule depends only on the number of steps, so it has no state to save.
    """
    factor = schedule_factor(step, train)
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor
    return factor
