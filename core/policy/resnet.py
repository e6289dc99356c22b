"""ResNets (He et al. 2016) without their classifier, for vision encoders that read the last map."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core.errors import ConfigError, did_you_mean
from core.system.torchvision import import_library
from core.weights.pretrained import filter_keys

ResNetNorm = Literal["frozen_batch", "group"]
CHANNELS_PER_GROUP = 16  # of a group norm, as in Diffusion Policy


def build_resnet(model: str, norm: ResNetNorm) -> Any:
    """Build timm's ResNet of a name, with other norms in place of its batch norms.

    norm: "frozen_batch": nothing of a norm trains or follows the images; "group": group norms of 16
        channels each, which train.

    The result's `forward_features` turns images (n 3 Y X) into maps (n `num_features` Y/32 X/32),
    rounded up. No sample's map depends on other samples. Its weights have torchvision's names.

    Raises ConfigError if timm has no ResNet of that name.
    """
    timm = import_library("timm")
    known = timm.list_models(module="resnet")
    if model not in known:
        raise ConfigError(
            f"vision_encoder.model: timm {timm.__version__} has no ResNet '{model}'"
            f"{did_you_mean(model, known)}"
        )
    resnet = timm.create_model(model, pretrained=False, num_classes=0)
    for name, module in list(resnet.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            channels = module.num_features
            parent, _, child = name.rpartition(".")
            other = (
                FrozenBatchNorm(channels)
                if norm == "frozen_batch"
                else nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)
            )
            setattr(resnet.get_submodule(parent), child, other)
    return resnet


def resnet_blocks(resnet: nn.Module) -> list[nn.Module]:
    """Return the residual blocks, which can be recomputed and compiled one by one."""
    stages = (resnet.get_submodule(f"layer{number}") for number in range(1, 5))
    return [block for stage in stages for block in stage.children()]


def resnet_tensors(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of a published ResNet but for its classifier and the norms' counters."""
    return filter_keys(
        tensors,
        lambda name: not name.startswith("fc.") and not name.endswith("num_batches_tracked"),
    )


class FrozenBatchNorm(nn.Module):
    """Scales and shifts channels as a batch norm in evaluation; nothing of it is a parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n C Y X) -> (n C Y X)."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
