"""Multilayer perceptrons, which many heads end with."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def build_mlp(widths: Sequence[int], activation: Literal["gelu", "relu"] = "gelu") -> nn.Sequential:
    """Build linear layers with an activation between them: (... widths[0]) -> (... widths[-1]).

    widths: width of the input, of every hidden layer, and of the output.
    activation: "gelu" keeps torch's small initial weights, with which all outputs begin near zero.
        "relu" has the initial weights of He et al. (2015), which keep the scale of the activations
        from layer to layer. With torch's, small inputs such as an LSTM's outputs shrink about a
        hundredfold in four layers, and for hundreds of training steps a policy gives the same
        actions for all inputs.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        if activation == "relu":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU() if activation == "relu" else nn.GELU()]
    return nn.Sequential(*layers[:-1])
