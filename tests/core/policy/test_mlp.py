"""MLPs: their layers, and the scale of their outputs when training begins."""

import pytest
import torch
from torch import nn

from core import build_mlp


@pytest.mark.parametrize(("activation", "layer"), [("gelu", nn.GELU), ("relu", nn.ReLU)])
def test_activations_stand_between_the_layers(activation, layer):
    mlp = build_mlp([3, 8, 5], activation)
    assert [type(x) for x in mlp] == [nn.Linear, layer, nn.Linear]
    assert mlp(torch.ones(2, 4, 3)).shape == (2, 4, 5)


def test_two_widths_are_one_linear_layer():
    assert [type(x) for x in build_mlp([3, 5])] == [nn.Linear]


def test_relu_keeps_the_scale_of_its_input_and_gelu_begins_near_zero():
    torch.manual_seed(0)
    x = torch.randn(100, 256)
    scale = {a: build_mlp([256, 256, 256, 256], a)(x).std() for a in ("relu", "gelu")}
    assert 0.5 < scale["relu"] < 2
    assert scale["gelu"] < 0.1
