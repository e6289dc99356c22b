"""Octo's image tokens: a small convolutional stem, whose last map has a cell for each patch."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Self

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import TokenGroup, VisionEncoder, resize_images

GROUPS = 32  # of every norm


@dataclass(frozen=True)
class OctoVisionConfig:
    """The stem, and the size of the images; the defaults are those of Octo-Small."""

    image_size: Annotated[int, Gt(0)] = 256
    """rows and columns to which every camera is resized, pixels; a multiple of the patches."""
    channels: tuple[Annotated[int, Gt(0)], ...] = (32, 96, 192, 384)
    """channels of the stem's convolutions, multiples of 32. Each halves the image, so that after
    four of them a token is a patch of 16 x 16 pixels, and after three one of 8 x 8.
    """
    width: Annotated[int, Gt(0)] = 384
    """width of the tokens."""

    def __post_init__(self) -> None:
        if not self.channels or any(channels % GROUPS for channels in self.channels):
            raise ValueError(
                f"channels = {list(self.channels)} must be one or more multiples of {GROUPS}"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size = {self.image_size} must be a multiple of {self.patch_size}, to which "
                f"{len(self.channels)} convolutions lead; change it or the number of channels"
            )

    @property
    def patch_size(self) -> int:
        """Rows and columns of a patch, pixels."""
        return 2 ** len(self.channels)  # type: ignore[no-any-return]


class OctoVision(VisionEncoder):
    """Turns each patch of each camera into a token, with the patch's row and column as grid.

    Every camera has a stem of its own. The stem is that of Xiao et al. (2021), which ends with a
    linear layer. The instruction is not read, and the tokens do not know where they are: the action
    tokens "octo" add positions.
    """

    def __init__(
        self, config: OctoVisionConfig, *, cameras: Mapping[str, tuple[int, int, int]]
    ) -> None:
        super().__init__()
        self.cameras, self.width, self.size = sorted(cameras), config.width, config.image_size
        self.stems = nn.ModuleDict({name: build_stem(config) for name in self.cameras})
        rows = torch.arange(config.image_size // config.patch_size)
        grid = torch.cartesian_prod(rows, rows).repeat(len(self.cameras), 1)
        self.register_buffer("grid", grid, persistent=False)
        self.grid: Tensor

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:  # noqa: ARG002
        """{camera: (B T C Y X) uint8} -> (B T N width), with the grid (N 2)."""
        tokens = [self._encode(images[name], self.stems[name]) for name in self.cameras]
        return TokenGroup(torch.cat(tokens, dim=2), grid=self.grid)

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the stems of the cameras that both have; a further camera's stays random."""
        gone = tuple(f"stems.{name}." for name in set(former.cameras) - set(self.cameras))
        further = tuple(f"stems.{name}." for name in set(self.cameras) - set(former.cameras))
        adapted = {name: x for name, x in tensors.items() if not name.startswith(gone)}
        own = self.state_dict()
        return adapted | {name: x for name, x in own.items() if name.startswith(further)}

    def _encode(self, images: Tensor, stem: nn.Module) -> Tensor:
        """Images of one camera (B T C Y X) uint8 -> their patches (B T n width)."""
        pixels = resize_images(images.flatten(0, 1), self.size) / 127.5 - 1
        patches = stem(pixels.to(next(stem.parameters()).dtype))
        return rearrange(  # type: ignore[no-any-return]
            patches, "(b t) d y x -> b t (y x) d", b=len(images)
        )


class StandardizedConv(nn.Conv2d):
    """A convolution whose kernels have mean 0 and standard deviation 1 (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """(n C Y X) -> (n channels Y/stride X/stride)."""
        kernels = self.weight.float()
        spread, mean = torch.std_mean(kernels, dim=(1, 2, 3), correction=0, keepdim=True)
        standardized = ((kernels - mean) / (spread + 1e-5)).to(x.dtype)
        return F.conv2d(x, standardized, self.bias, self.stride, self.padding)


def build_stem(config: OctoVisionConfig) -> nn.Sequential:
    """Build the layers that turn images (n 3 Y X) into a map of patches (n width y x)."""
    layers: list[nn.Module] = []
    for before, after in pairwise((3, *config.channels)):
        convolution = StandardizedConv(before, after, kernel_size=3, stride=2, padding=1)
        layers += [convolution, nn.GroupNorm(GROUPS, after, eps=1e-6), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(config.channels[-1], config.width, kernel_size=1))
