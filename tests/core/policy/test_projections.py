"""Projections to the backbone's width: what is built, and what it computes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.policy.projections import build_projection
from core.registry.part_settings import EncoderSettings


def layers_of(projection):
    return [module for module in projection.modules() if isinstance(module, nn.Linear)]


def test_widths_that_agree_need_nothing_unless_the_recipe_wants_more():
    assert isinstance(build_projection(EncoderSettings(), 8, 8), nn.Identity)
    assert len(layers_of(build_projection(EncoderSettings("mlp"), 8, 8))) == 2


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("linear", [(6, 8)]),
        ("mlp", [(6, 8), (8, 8)]),  # LLaVA 1.5
        ("mlp3", [(6, 24), (24, 8), (8, 8)]),  # OpenVLA's fused projection
    ],
)
def test_a_projection_has_its_layers_with_gelu_between(kind, sizes):
    projection, tokens = build_projection(EncoderSettings(kind), 6, 8), torch.randn(2, 3, 6)
    linears = layers_of(projection)
    assert [(layer.in_features, layer.out_features) for layer in linears] == sizes
    expected = linears[0](tokens)
    for layer in linears[1:]:
        expected = layer(F.gelu(expected))
    torch.testing.assert_close(projection(tokens), expected)


@pytest.mark.parametrize("width", [6, 16])
def test_tokens_are_scaled_by_the_square_root_of_the_backbones_width(width):
    torch.manual_seed(0)
    plain = build_projection(EncoderSettings(), width, 16)
    torch.manual_seed(0)
    scaled = build_projection(EncoderSettings(projection_scale="sqrt_width"), width, 16)
    tokens = torch.randn(2, width)
    torch.testing.assert_close(scaled(tokens), 4 * plain(tokens))


def test_no_tokens_become_no_tokens_of_the_backbones_width():
    projection = build_projection(EncoderSettings(), 0, 16)
    assert projection(torch.zeros(3, 0, 0, dtype=torch.bfloat16)).shape == (3, 0, 16)
    assert projection(torch.zeros(3, 0, 0, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not list(projection.parameters())
