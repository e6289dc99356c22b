"""Low-rank adapters (LoRA, Hu et al. 2021) for a part's linear layers, through peft."""

import torch
from torch import nn

from core.errors import ConfigError
from core.policy.adapter_names import is_adapter
from core.policy.freezing import match_weights
from core.registry.part_settings import PartSettings
from core.system.torchvision import import_library

RANK = 16


def add_adapters(part: nn.Module, settings: PartSettings, where: str) -> None:
    """Freeze a part, and add trainable adapters to its linear layers, in place.

    settings: which layers get an adapter, the sizes of the adapters, and which other weights train.
    where: the part's section, for messages.

    Raises ConfigError if peft is missing, if `settings` names a linear layer or a weight that
    does not exist, or if the part has no trainable linear layer.
    """
    peft = import_library("peft", extra="lora")
    targets = _find_targets(part, settings.lora_targets, where)
    patterns, key = settings.lora_train or (), f"{where}.lora_train"
    # a part freezes weights that no output depends on; they do not train here either
    others = [weight for weight in match_weights(part, patterns, key) if weight.requires_grad]
    rank, alpha = rank_and_alpha(settings)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=settings.lora_dropout or 0.0,
        target_modules=targets,
    )
    part.requires_grad_(False)
    peft.inject_adapter_in_model(config, part)
    for weight in others:
        weight.requires_grad_(True)
    for parameter in part.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.get_default_dtype())


def rank_and_alpha(settings: PartSettings) -> tuple[int, float]:
    """Return the rank of a part's adapters, and alpha: their output is scaled by alpha / rank."""
    rank = settings.lora_rank or RANK
    return rank, 2 * rank if settings.lora_alpha is None else settings.lora_alpha


def merge_adapters(part: nn.Module) -> None:
    """Merge each adapter into the weights of its layer, in place, and remove the adapter."""
    if not has_adapters(part):
        return
    tuner = import_library("peft.tuners.tuners_utils", extra="lora").BaseTunerLayer
    for name, module in list(part.named_modules()):
        if isinstance(module, tuner):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(part.get_submodule(parent), child, module.get_base_layer())


def has_adapters(part: nn.Module) -> bool:
    """Whether a part has adapters."""
    return any(is_adapter(name) for name, _ in part.named_parameters())


def _find_targets(part: nn.Module, last_words: tuple[str, ...] | None, where: str) -> list[str]:
    """Return the full names of the linear layers that get an adapter.

    last_words: which layers to adapt, by the last component of their names, such as 'q_proj'; None
        for all linear layers.
    where: the part's section, for messages.
    """
    # A part freezes the weights of layers whose output it does not use; such layers get no adapter.
    names = [
        name
        for name, module in part.named_modules()
        if type(module) is nn.Linear and name and module.weight.requires_grad
    ]
    known = {name.rpartition(".")[2] for name in names}
    if last_words is not None:
        names = [name for name in names if name.rpartition(".")[2] in last_words]
        if unknown := [word for word in last_words if word not in known]:
            layers = ", ".join(sorted(word for word in known if not word.isdigit())) or "none"
            raise ConfigError(
                f"{where}.lora_targets: no linear layer is called {', '.join(unknown)}; "
                f"there are: {layers}"
            )
    if not names:
        raise ConfigError(
            f'{where}.train: "lora" adapts linear layers, and this part has none; set true or false'
        )
    return names
