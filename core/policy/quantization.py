"""Frozen linear layers with weights in four bits (QLoRA, Dettmers et al. 2023; bitsandbytes)."""

from collections.abc import Set

from torch import nn

from core.errors import ConfigError
from core.system.torchvision import import_library


def quantize(part: nn.Module, weights: Set[str], where: str) -> set[str]:
    """Replace linear layers of a part by layers with NF4 weights, in place.

    weights: names of frozen weights; only those of linear layers are quantised.
    where: the part's section, for messages.

    Returns the names under which the part's state dict now holds these weights and their scales.
    Raises ConfigError if bitsandbytes is missing, or if `weights` names no linear layer.
    """
    layers = import_library("bitsandbytes.nn", extra="quantized")
    # Only layers of the class nn.Linear are replaced, not layers of its subclasses. For example,
    # nn.MultiheadAttention holds a layer of a subclass, and reads the weight of this layer
    # without calling the layer's forward, so it cannot use a quantised weight.
    linear = {
        name: module
        for name, module in part.named_modules()
        if type(module) is nn.Linear and f"{name}.weight" in weights
    }
    if not linear:
        raise ConfigError(
            f"{where}.quantize: concerns linear layers, and this part has none; drop it"
        )
    for name, layer in linear.items():
        quantized = layers.Linear4bit(
            layer.in_features, layer.out_features, bias=False, quant_type="nf4", device="meta"
        )
        weight = layers.Params4bit(
            layer.weight.data, requires_grad=False, quant_type="nf4", module=quantized
        )
        # This turns off a repacking of weights that bitsandbytes does in evaluation mode on CPUs
        # with AVX512-BF16: a layer with repacked weights passes no gradient to its input.
        quantized.support_avx512bf16_for_cpu = False
        quantized.weight = weight.to(layer.weight.device)  # the move quantises
        quantized.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(part.get_submodule(parent), child, quantized)
    return {key for key in part.state_dict() if key.rpartition(".weight")[0] in linear}


def parameter_count(weight: nn.Parameter) -> int:
    """Return how many numbers a parameter holds; a byte of a four-bit parameter holds two."""
    quant_state = getattr(weight, "quant_state", None)
    return weight.numel() if quant_state is None else int(quant_state.shape.numel())
