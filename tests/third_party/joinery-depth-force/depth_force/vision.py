"""A vision encoder that reads a depth camera and a force sensor, and no colours."""

from dataclasses import dataclass

import torch
from torch import nn

from core import ConfigError, TokenGroup, VisionEncoder, hookimpl

# the depth in millimetres and the force in newtons that are scaled to 1
LARGEST_DEPTH, LARGEST_FORCE = 500.0, 10.0


@dataclass(frozen=True)
class DepthForceConfig:
    """A projection of depth, and one of force."""

    width: int = 32
    """of both tokens."""


class DepthForceEncoder(VisionEncoder):
    """Gives two tokens per frame: one of the depth image, one of the force.

    Raises ConfigError if data.features does not name both.
    """

    separates_cameras = False

    def __init__(self, config, *, cameras, features):
        super().__init__()
        if missing := [name for name in ("depth", "force") if name not in features]:
            raise ConfigError(
                f"data.features: 'depth_force' reads {' and '.join(missing)}; name it there"
            )
        self.cameras, self.width = sorted(cameras), config.width
        rows, columns, _ = features["depth"].shape
        self.depth = nn.Sequential(nn.Linear(rows * columns, config.width), nn.GELU())
        self.force = nn.Linear(*features["force"].shape, config.width)

    def forward(self, images, text):
        dtype = self.force.weight.dtype
        depth = images["depth"].flatten(2).to(dtype)  # (B T Y X 1) uint16 -> (B T Y*X)
        depth_token = self.depth(1 - depth / LARGEST_DEPTH)
        force_token = self.force(images["force"].to(dtype) / LARGEST_FORCE)
        return TokenGroup(torch.stack([depth_token, force_token], dim=2))


@hookimpl
def register_vision_encoders(register):
    register("depth_force", DepthForceConfig, DepthForceEncoder)
