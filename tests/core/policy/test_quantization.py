"""Weights in four bits: near the original ones, and unchanged by training."""

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import ConfigError
from core.policy.lora import add_adapters
from core.policy.quantization import parameter_count, quantize
from core.registry.part_settings import PartSettings
from plugins.backbones.transformer import Transformer, TransformerConfig
from tests.core.policy.test_lora import run

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install -e '.[quantized]')")

# QLoRA's 16 levels of a standard normal distribution, scaled to [-1, 1] (Dettmers et al. 2023,
# appendix E)
BELOW = (-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004)
ABOVE = (0.07958030, 0.16093020, 0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1.0)
NF4 = np.array([*BELOW, 0.0, *ABOVE])
BLOCK = 64


def transformer(train="lora") -> tuple[Transformer, dict[str, torch.Tensor]]:
    """A part with adapters or frozen, in four bits, and the weights that it had before."""
    torch.manual_seed(0)
    part = Transformer(TransformerConfig(width=64, depth=2, heads=2))
    if train == "lora":
        add_adapters(part, PartSettings(train="lora", lora_rank=2), "backbone")
    else:
        part.requires_grad_(False)
    before = {
        name: p.detach().clone() for name, p in part.named_parameters() if not p.requires_grad
    }
    quantize(part, before.keys(), "backbone")
    return part, before


def layer_in_four_bits(weight: torch.Tensor) -> nn.Module:
    part = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0]))
    part[0].weight.data = weight.clone()
    part.requires_grad_(False)
    quantize(part, {"0.weight"}, "backbone")
    return part


@pytest.mark.parametrize("shape", [(64, 64), (3, 100), (129, 7)])
def test_each_weight_is_the_nearest_level_of_its_block(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    part = layer_in_four_bits(weight)
    measured = (part(torch.eye(shape[1])) - part[0].bias).T.numpy().ravel().astype(np.float64)
    flat = np.pad(weight.double().numpy().ravel(), (0, -weight.numel() % BLOCK)).reshape(-1, BLOCK)
    scale = np.abs(flat).max(axis=1, keepdims=True)
    nearest = NF4[np.abs(flat[..., None] / scale[..., None] - NF4).argmin(axis=-1)] * scale
    # the scales themselves are kept in eight bits
    np.testing.assert_allclose(measured, nearest.ravel()[: weight.numel()], rtol=0.03, atol=1e-6)


def test_adapters_learn_beside_weights_that_stay():
    part, _ = transformer()
    packed = {
        name: p.detach().clone() for name, p in part.named_parameters() if not p.requires_grad
    }
    optimizer = torch.optim.SGD([p for p in part.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        run(part).square().sum().backward()
        optimizer.step()
    trained = {name for name, p in part.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {name for name, _ in part.named_parameters() if ".lora_" in name}
    for name, before in packed.items():
        assert torch.equal(dict(part.named_parameters())[name], before), name


def test_every_linear_layer_of_a_frozen_part_is_kept_in_an_eighth_of_the_memory():
    part, before = transformer(train=False)
    matrices = [
        name
        for name, weight in before.items()
        if weight.ndim == 2 and not name.startswith("positions")
    ]
    now = dict(part.named_parameters())
    assert {name for name, weight in now.items() if weight.dtype == torch.uint8} == set(matrices)
    assert all(now[name].nbytes * 8 == before[name].nbytes for name in matrices)
    assert all(parameter_count(now[name]) == before[name].numel() for name in before)


def test_the_names_that_come_back_are_all_that_the_state_dict_has_of_them():
    torch.manual_seed(0)
    part = Transformer(TransformerConfig(width=64, depth=1, heads=2)).requires_grad_(False)
    before = set(part.state_dict())
    held = quantize(part, before, "backbone")
    assert set(part.state_dict()) - held == {name for name in before if "norm" in name}


def test_a_part_without_linear_layers_is_refused():
    with pytest.raises(
        ConfigError, match=r"backbone.quantize: concerns linear layers, and this part has none"
    ):
        quantize(nn.Sequential(nn.Embedding(3, 4)), {"0.weight"}, "backbone")
