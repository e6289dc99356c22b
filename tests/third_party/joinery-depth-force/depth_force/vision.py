"""A vision encoder that reads no colours: a token of what the depth camera shows, and one of what
the tip feels.
"""

from dataclasses import dataclass

import torch
from torch import nn

from core import ConfigError, TokenGroup, VisionEncoder, hookimpl

FARTHEST, LARGEST = 500.0, 10.0  # millimetres of depth and newtons that become 1


@dataclass(frozen=True)
class DepthForceConfig:
    """Depth and force, projected."""

    width: int = 32
    """of both tokens."""


class DepthForceEncoder(VisionEncoder):
    """Two tokens a frame; raises ConfigError where data.features does not name depth and force."""

    separates_cameras = False

    def __init__(self, config, *, cameras, features):
        super().__init__()
        if lacking := [name for name in ("depth", "force") if name not in features]:
            raise ConfigError(
                f"data.features: 'depth_force' reads {' and '.join(lacking)}; name it there"
            )
        self.cameras, self.width = sorted(cameras), config.width
        rows, columns, _ = features["depth"].shape
        self.depth = nn.Sequential(nn.Linear(rows * columns, config.width), nn.GELU())
        self.force = nn.Linear(*features["force"].shape, config.width)

    def forward(self, images, text):
        kind = self.force.weight.dtype
        depth = (
            1 - images["depth"].flatten(2).to(kind) / FARTHEST
        )  # (B T Y X 1) uint16 -> (B T Y*X)
        tokens = self.depth(depth), self.force(images["force"].to(kind) / LARGEST)
        return TokenGroup(torch.stack(tokens, dim=2))


@hookimpl
def register_vision_encoders(register):
    register("depth_force", DepthForceConfig, DepthForceEncoder)
