"""Low-rank adapters (LoRA, Hu et al. 2021) beside a part's linear layers, through peft."""

import torch
from torch import nn

from core.errors import ConfigError
from core.registry.part_settings import PartSettings
from core.system.torchvision import import_library

RANK = 16


def add_adapters(part: nn.Module, settings: PartSettings, where: str) -> None:
    """Freeze a part and put a trainable adapter beside each linear layer that the settings name, in
    place.

    where: the part's section, for the ConfigError where peft is missing or a target names no linear
    layer.
    """
    peft = import_library("peft", extra="lora")
    targets = _targets(part, settings.lora_targets, where)
    rank = settings.lora_rank or RANK
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if settings.lora_alpha is None else settings.lora_alpha,
        lora_dropout=settings.lora_dropout or 0.0,
        target_modules=targets,
    )
    part.requires_grad_(False)
    peft.inject_adapter_in_model(config, part)
    for parameter in part.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.get_default_dtype())


def merge_adapters(part: nn.Module) -> None:
    """Add what the adapters learned to the weights beside which they stand, and remove them, in
    place.
    """
    if not has_adapters(part):
        return
    tuner = import_library("peft.tuners.tuners_utils", extra="lora").BaseTunerLayer
    for name, module in list(part.named_modules()):
        if isinstance(module, tuner):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(part.get_submodule(parent), child, module.get_base_layer())


def has_adapters(part: nn.Module) -> bool:
    """Whether a part trains by adapters."""
    return any(".lora_" in name for name, _ in part.named_parameters())


def _targets(part: nn.Module, wanted: tuple[str, ...] | None, where: str) -> list[str]:
    """Whole names of the linear layers that get an adapter."""
    linear = {
        name: module for name, module in part.named_modules() if type(module) is nn.Linear and name
    }
    layers = [
        name for name, module in linear.items() if module.weight.requires_grad
    ]  # others do nothing for the part
    if wanted is None:
        chosen = layers
    else:
        chosen = [name for name in layers if name.rpartition(".")[2] in wanted]
        found = {name.rpartition(".")[2] for name in layers}
        if lost := [word for word in wanted if word not in found]:
            known = ", ".join(sorted(word for word in found if not word.isdigit())) or "none"
            raise ConfigError(
                f"{where}.lora_targets: no linear layer is called {', '.join(lost)}; there are: {known}"
            )
    if not chosen:
        raise ConfigError(
            f'{where}.train: "lora" stands beside linear layers, and this part has none; set true or false'
        )
    return chosen
