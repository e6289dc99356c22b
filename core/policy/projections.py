"""From an encoder's width to the backbone's."""

import math

from torch import Tensor, nn

from core.registry.part_settings import EncoderSettings


def build_projection(settings: EncoderSettings, width: int, target: int) -> nn.Module:
    """Tokens (... width) -> (... target): nothing where widths agree and the recipe wants no more
    than "linear".

    An encoder of width 0 has no tokens, so there is nothing to learn. "mlp": Liu et al. 2024 (LLaVA
    1.5); "mlp3": the fused projection of OpenVLA (Kim et al. 2024), whose first layer is four times
    as wide as what it reads.
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
    """No tokens (... 0 0) -> no tokens of the backbone's width."""

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
        """Any shape -> the same."""
        return tokens * self.factor
