"""Roles: by the type of the layer, the name and the shape of the parameter."""

import torch
from torch import nn

from core.training.roles import roles_of


class Part(nn.Module):
    """One of each: layers of PyTorch, learned tokens and positions, a shared embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(2, 4))
        self.output = nn.Linear(4, 7, bias=False)
        self.words = nn.Embedding(7, 4)
        self.output.weight = self.words.weight
        self.layer = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.norm_of_maps = nn.LayerNorm((4, 4))
        self.kernel = nn.Conv2d(3, 4, 2)
        self.recurrent = nn.LSTM(4, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.scale = nn.Parameter(torch.ones(()))


def test_each_parameter_has_the_role_of_its_layer():
    part = Part()
    roles = roles_of(part)
    by_role: dict[str, set[str]] = {}
    for name, parameter in part.named_parameters():
        by_role.setdefault(roles[parameter], set()).add(name)
    assert by_role["embedding"] == {"tokens", "output.weight"}  # the name under which it is shared
    assert by_role["matrix"] == {
        "layer.weight",
        "kernel.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }
    assert {"norm_of_maps.weight", "norm.weight", "layer.bias", "scale"} <= by_role["vector"]
    assert roles.keys() == set(part.parameters())
