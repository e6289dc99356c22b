"""Projections of an encoder's tokens to the backbone's width."""

import math

from torch import Tensor, nn

from core.registry.part_settings import EncoderSettings


def build_projection(settings: EncoderSettings, width: int, target: int) -> nn.Module:
    """Build a projection of tokens (... width) to tokens (... target).

    "linear" adds no layer if the widths are equal. "mlp" is the projection of LLaVA 1.5 (Liu et al.
    2024). "mlp3" is the projection of OpenVLA (Kim et al. 2024), whose first hidden layer is four
    times as wide as its input. An encoder of width 0 has no tokens, and its projection has no
    weights.
    """
    if width == 0:
        return NoTokens(target)
    layers: list[nn.Module]
    match settings.projection:
        case "linear":
            layers = [] if width == target else [nn.Linear(width, target)]
        case "mlp":
            layers = [nn.Linear(width, target), nn.GELU(), nn.Linear(target, target)]
        case "mlp3":
            hidden = 4 * width
            layers = [
                nn.Linear(width, hidden),
                nn.GELU(),
                nn.Linear(hidden, target),
                nn.GELU(),
                nn.Linear(target, target),
            ]
    if settings.projection_scale == "sqrt_width":
        layers.append(Scale(math.sqrt(target)))
    if len(layers) < 2:
        return layers[0] if layers else nn.Identity()
    return nn.Sequential(*layers)


class NoTokens(nn.Module):
    """Changes the width of an encoder's empty output from 0 to the backbone's width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        """(... 0 0) -> (... 0 width)."""
        return tokens.new_zeros(*tokens.shape[:-1], self.width)


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of any shape -> the same shape."""
        return tokens * self.factor
