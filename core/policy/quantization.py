"""Frozen linear layers whose weights are kept in four bits (QLoRA, Dettmers et al. 2023), through
bitsandbytes.
"""

from collections.abc import Set

from torch import nn

from core.errors import ConfigError
from core.system.torchvision import import_library


def quantize(part: nn.Module, weights: Set[str], where: str) -> set[str]:
    """Replace the linear layers of a part whose weights are among those named by layers with NF4
    weights, in place.

    Returns the names under which the part's state dict now holds them, with their scales. where:
    the part's section, for the ConfigError where bitsandbytes is missing or no such weight belongs
    to a linear layer.
    """
    layers = import_library("bitsandbytes.nn", extra="quantized")
    linear = {
        # by its exact type: others, as those inside nn.MultiheadAttention, are read past their
        # forward
        name: module
        for name, module in part.named_modules()
        if type(module) is nn.Linear and f"{name}.weight" in weights
    }
    if not linear:
        raise ConfigError(
            f"{where}.quantize: concerns linear layers, and this part has none; drop it"
        )
    for name, layer in linear.items():
        small = layers.Linear4bit(
            layer.in_features, layer.out_features, bias=False, quant_type="nf4", device="meta"
        )
        weight = layers.Params4bit(
            layer.weight.data, requires_grad=False, quant_type="nf4", module=small
        )
        # these instructions repack weights in evaluation mode, and what is packed lets no gradient
        # through
        small.support_avx512bf16_for_cpu = False
        small.weight = weight.to(layer.weight.device)  # quantises
        small.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(part.get_submodule(parent), child, small)
    return {key for key in part.state_dict() if key.rpartition(".weight")[0] in linear}


def parameter_count(weight: nn.Parameter) -> int:
    """How many numbers a parameter stands for: one in four bits stores two in a byte."""
    quantized = getattr(weight, "quant_state", None)
    return weight.numel() if quantized is None else int(quantized.shape.numel())
