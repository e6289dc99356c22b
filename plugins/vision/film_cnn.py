"""A small convolutional encoder, modulated by the instruction, that gives patches and keypoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from annotated_types import Ge, Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import (
    ConfigError,
    Register,
    TokenGroup,
    VisionEncoder,
    expected_places,
    hookimpl,
    mean_token,
    resize_images,
)

STRIDE = 4  # side of a feature map's cell, in pixels


@dataclass(frozen=True)
class FiLMConfig:
    """An encoder of a few hundred thousand parameters.

    It learns from scratch which object the instruction names.
    """

    image_size: Annotated[int, Gt(0)] = 64
    """rows and columns to which every camera is resized, pixels; a multiple of 4 * grid."""
    width: Annotated[int, Gt(0)] = 128
    """width of every token."""
    channels: Annotated[int, Gt(0)] = 48
    """number of feature maps."""
    blocks: Annotated[int, Gt(0)] = 2
    """number of residual blocks that the instruction modulates; the first block has a 1 x 1 kernel,
    the other blocks have 3 x 3 kernels.
    """
    keypoints: Annotated[int, Ge(0)] = 32
    """number of keypoints per camera that the instruction picks out of the image; 0: no keypoints.
    """
    keypoint_sharpness: Annotated[float, Ge(0)] = 0.0
    """standard deviation over the image to which each keypoint's map is scaled before its softmax
    when training begins; each keypoint then learns its own. With 3, keypoints can follow things of
    a few pixels from the first step on. 0: the maps are not scaled.
    """
    grid: Annotated[int, Gt(0)] = 2
    """number of rows, and of columns, in each camera's grid of patch tokens."""

    def __post_init__(self) -> None:
        if self.image_size % (STRIDE * self.grid):
            raise ValueError(
                f"image_size = {self.image_size} is no multiple of {STRIDE} * grid = "
                f"{STRIDE * self.grid}"
            )
        if self.keypoint_sharpness and not self.keypoints:
            raise ValueError(
                "keypoint_sharpness has no effect with keypoints = 0; drop one of them"
            )


class FiLMEncoder(VisionEncoder):
    """Turns each camera's images into a grid of patch tokens and one token for all keypoints.

    Cameras share no weights. The instruction scales and shifts every channel of the feature maps
    (FiLM: Perez et al. 2018). Apart from the norms, each cell of a map depends only on the
    instruction and on the image near the cell. A keypoint is the mean position in a feature map,
    weighted by a softmax over the map (Levine et al. 2016). With FiLM and keypoints, the policy
    learns to bind a word to a place from thousands of samples rather than millions.

    Raises ConfigError if there is no instruction, or if a camera's name is not allowed as the name
    of a torch module.
    """

    def __init__(
        self, config: FiLMConfig, *, cameras: Mapping[str, tuple[int, int, int]], text_width: int
    ) -> None:
        super().__init__()
        if not text_width:
            raise ConfigError(
                "vision_encoder.name: 'film_cnn' sees by the instruction, and this text encoder "
                "gives none; choose another text_encoder.name, or another vision_encoder.name"
            )
        # a ModuleDict refuses a module whose name is also the name of an attribute of ModuleDict
        modules = nn.ModuleDict()
        if wrong := [name for name in cameras if not name.isidentifier() or hasattr(modules, name)]:
            raise ConfigError(
                f"vision_encoder: 'film_cnn' names weights after cameras, and cannot after {wrong}"
            )
        self.width = config.width
        self.size = config.image_size
        self.cameras = sorted(cameras)
        self.count = len(cameras) * (config.grid**2 + (config.keypoints > 0))
        # Embeddings are small when training begins; the norm scales the instruction to unit
        # variance.
        self.norm = nn.LayerNorm(text_width)
        self.encoders = nn.ModuleDict(
            {name: CameraEncoder(config, text_width) for name in self.cameras}
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks of all cameras; they can be recomputed, and compiled."""
        blocks = (self.get_submodule(f"encoders.{name}.blocks") for name in self.cameras)
        return [block for of_camera in blocks for block in of_camera.children()]

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:
        """{camera: (B T C Y X) uint8}, text (B M text_width) -> (B T N width).

        N = V * (grid * grid + 1), or V * grid * grid without keypoints.
        """
        batch, window = images[self.cameras[0]].shape[:2]
        instruction = self.norm(mean_token(text))  # (B text_width)
        instruction = instruction.repeat_interleave(window, dim=0)  # (B*T text_width)
        tokens = []
        for name in self.cameras:
            scaled = images[name].flatten(0, 1).float() / 127.5 - 1  # (B*T C Y X) in [-1, 1]
            resized = resize_images(scaled, self.size).to(instruction.dtype)
            tokens.append(self.encoders[name](resized, instruction))
        return TokenGroup(rearrange(torch.cat(tokens, dim=1), "(b t) n d -> b t n d", b=batch))

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the encoders of the cameras that both have; a further camera's stays random."""
        gone = tuple(f"encoders.{name}." for name in set(former.cameras) - set(self.cameras))
        further = tuple(f"encoders.{name}." for name in set(self.cameras) - set(former.cameras))
        adapted = {name: x for name, x in tensors.items() if not name.startswith(gone)}
        own = self.state_dict()
        return adapted | {name: x for name, x in own.items() if name.startswith(further)}


class CameraEncoder(nn.Module):
    """Encodes one camera's images as tokens."""

    def __init__(self, config: FiLMConfig, text_width: int) -> None:
        super().__init__()
        channels, cell = config.channels, config.image_size // STRIDE // config.grid
        # three colours and two coordinates
        self.stem = nn.Conv2d(5, channels, kernel_size=STRIDE, stride=STRIDE)
        kernels = [1, *[3] * (config.blocks - 1)]
        self.blocks = nn.ModuleList(FiLMBlock(channels, kernel, text_width) for kernel in kernels)
        self.patches = nn.Conv2d(channels, config.width, kernel_size=cell, stride=cell)
        self.positions = nn.Parameter(torch.randn(config.grid**2, config.width) * 0.02)
        self.keypoints = (
            nn.Conv2d(channels, config.keypoints, kernel_size=1) if config.keypoints else None
        )
        self.sharpness = (
            nn.Parameter(torch.full((config.keypoints,), config.keypoint_sharpness))
            if config.keypoint_sharpness
            else None
        )
        self.places = nn.Linear(4 * config.keypoints, config.width) if config.keypoints else None
        self.register_buffer("coordinates", _coordinates(config.image_size), persistent=False)
        self.coordinates: Tensor

    def forward(self, images: Tensor, instruction: Tensor) -> Tensor:
        """(n C Y X) in [-1, 1], instruction (n text_width) -> (n N width)."""
        coordinates = self.coordinates.to(images.dtype).expand(len(images), -1, -1, -1)
        x = F.relu(self.stem(torch.cat([images, coordinates], dim=1)))
        for block in self.blocks:
            x = block(x, instruction)
        tokens: Tensor = rearrange(self.patches(x), "n d y x -> n (y x) d") + self.positions
        if self.keypoints is None or self.places is None:
            return tokens
        maps = self.keypoints(x)
        if self.sharpness is not None:
            maps = F.instance_norm(maps) * self.sharpness[:, None, None]
        places = self.places(expected_places(maps))
        return torch.cat([tokens, rearrange(places, "n d -> n 1 d")], dim=1)


class FiLMBlock(nn.Module):
    """A residual block whose features the instruction scales and shifts."""

    def __init__(self, channels: int, kernel: int, text_width: int) -> None:
        super().__init__()
        # The layer is called "look" because checkpoints use this name.
        self.look = nn.Conv2d(channels, channels, kernel_size=kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(1, channels, affine=False)
        self.film = nn.Linear(text_width, 2 * channels)

    def forward(self, x: Tensor, instruction: Tensor) -> Tensor:
        """(n C Y X), (n text_width) -> (n C Y X)."""
        scale, shift = rearrange(self.film(instruction), "n (two c) -> two n c 1 1", two=2)
        return x + F.relu(self.norm(self.look(x)) * (1 + scale) + shift)


def _coordinates(size: int) -> Tensor:
    """Return row and column of each pixel in [-1, 1] (2 size size).

    The encoder adds row and column to the image as two channels (CoordConv, Liu et al. 2018).
    """
    steps = torch.linspace(-1, 1, size)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"))


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "film_cnn"."""
    register("film_cnn", FiLMConfig, FiLMEncoder)
