"""A small convolutional encoder that sees with the instruction in mind: FiLM, keypoints and patch
tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import ConfigError, Register, TokenGroup, VisionEncoder, hookimpl

STRIDE = 4  # pixels per cell of the feature map


@dataclass(frozen=True)
class FiLMConfig:
    """An encoder of a few hundred thousand parameters that learns from scratch which thing the
    instruction names.
    """

    image_size: Annotated[int, Gt(0)] = 64
    """rows and columns to which every camera is resized, pixels; a multiple of 4 * grid."""
    width: Annotated[int, Gt(0)] = 128
    """of every token."""
    channels: Annotated[int, Gt(0)] = 48
    """of the feature maps."""
    blocks: Annotated[int, Gt(0)] = 2
    """residual blocks that the instruction modulates; the first mixes channels, the others look
    around, too.
    """
    keypoints: Annotated[int, Ge(0)] = 32
    """places per camera that the instruction picks out of the image; 0 for none."""
    grid: Annotated[int, Gt(0)] = 2
    """rows and columns of patch tokens per camera."""

    def __post_init__(self) -> None:
        if self.image_size % (STRIDE * self.grid):
            raise ValueError(
                f"image_size = {self.image_size} is no multiple of {STRIDE} * grid = {STRIDE * self.grid}"
            )


class FiLMEncoder(VisionEncoder):
    """Each camera has weights of its own; its tokens are a grid of patches, and one token of all
    its keypoints.

    The instruction scales and shifts every channel while colours and places are still there (FiLM:
    Perez et al. 2018); keypoints are the expected places under a softmax over the feature map
    (Levine et al. 2016). Both let the policy bind a word to a place after thousands of samples
    rather than millions.
    """

    def __init__(
        self, config: FiLMConfig, *, cameras: Mapping[str, tuple[int, int, int]], text_width: int
    ) -> None:
        super().__init__()
        if not text_width:
            raise ConfigError(
                "vision_encoder.name: 'film_cnn' sees by the instruction, and there is none; choose another encoder"
            )
        taken = nn.ModuleDict()  # its own attributes cannot be names of its modules
        if wrong := [name for name in cameras if not name.isidentifier() or hasattr(taken, name)]:
            raise ConfigError(
                f"vision_encoder: 'film_cnn' names weights after cameras, and cannot after {wrong}"
            )
        self.width = config.width
        self.size = config.image_size
        self.cameras = sorted(cameras)
        self.norm = nn.LayerNorm(
            text_width
        )  # embeddings begin small; so the sentence begins at unit size
        self.encoders = nn.ModuleDict(
            {name: CameraEncoder(config, text_width) for name in self.cameras}
        )

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:
        """{camera: (B T C Y X) uint8}, text (B M text_width) -> (B T N width), N = V * (grid * grid
        + 1).
        """
        batch, window = images[self.cameras[0]].shape[:2]
        sentence = self.norm(_mean(text)).repeat_interleave(window, dim=0)  # (B*T text_width)
        tokens = [
            self.encoders[name](
                _resize(images[name].flatten(0, 1), self.size, sentence.dtype), sentence
            )
            for name in self.cameras
        ]
        return TokenGroup(rearrange(torch.cat(tokens, dim=1), "(b t) n d -> b t n d", b=batch))


class CameraEncoder(nn.Module):
    """One camera's images -> tokens."""

    def __init__(self, config: FiLMConfig, text_width: int) -> None:
        super().__init__()
        channels, cell = config.channels, config.image_size // STRIDE // config.grid
        self.stem = nn.Conv2d(
            5, channels, kernel_size=STRIDE, stride=STRIDE
        )  # colours and coordinates
        reaches = [1, *[3] * (config.blocks - 1)]
        self.blocks = nn.ModuleList(FiLMBlock(channels, reach, text_width) for reach in reaches)
        self.patches = nn.Conv2d(channels, config.width, kernel_size=cell, stride=cell)
        self.positions = nn.Parameter(torch.randn(config.grid**2, config.width) * 0.02)
        self.keypoints = (
            nn.Conv2d(channels, config.keypoints, kernel_size=1) if config.keypoints else None
        )
        self.places = nn.Linear(4 * config.keypoints, config.width) if config.keypoints else None
        self.register_buffer("coordinates", _coordinates(config.image_size), persistent=False)
        self.coordinates: Tensor

    def forward(self, images: Tensor, sentence: Tensor) -> Tensor:
        """(n C Y X) in [-1, 1], sentence (n text_width) -> (n N width)."""
        coordinates = self.coordinates.to(images.dtype).expand(len(images), -1, -1, -1)
        x = F.relu(self.stem(torch.cat([images, coordinates], dim=1)))
        for block in self.blocks:
            x = block(x, sentence)
        tokens: Tensor = rearrange(self.patches(x), "n d y x -> n (y x) d") + self.positions
        if self.keypoints is None or self.places is None:
            return tokens
        places = self.places(expected_places(self.keypoints(x)))
        return torch.cat([tokens, rearrange(places, "n d -> n 1 d")], dim=1)


class FiLMBlock(nn.Module):
    """A residual block whose features the sentence scales and shifts."""

    def __init__(self, channels: int, reach: int, text_width: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, channels, kernel_size=reach, padding=reach // 2)
        self.norm = nn.GroupNorm(1, channels, affine=False)
        self.film = nn.Linear(text_width, 2 * channels)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """(n C Y X), (n text_width) -> (n C Y X)."""
        scale, shift = rearrange(self.film(sentence), "n (two c) -> two n c 1 1", two=2)
        return x + F.relu(self.norm(self.look(x)) * (1 + scale) + shift)


def expected_places(logits: Tensor) -> Tensor:
    """Spatial softmax: maps (n K Y X) -> each map's expected row and column in [-1, 1] and their
    variances (n 4*K).
    """
    weights = rearrange(logits.flatten(2).softmax(-1), "n k (y x) -> n k y x", y=logits.shape[2])
    moments = []
    for marginal in (weights.sum(dim=3), weights.sum(dim=2)):  # (n K Y), (n K X)
        at = torch.linspace(-1, 1, marginal.shape[-1], device=logits.device, dtype=logits.dtype)
        mean = marginal @ at
        moments += [mean, marginal @ at**2 - mean**2]
    return torch.cat(moments, dim=1)


def _mean(text: TokenGroup) -> Tensor:
    """Mean of the real tokens: (B M D) -> (B D)."""
    if text.mask is None:
        return text.tokens.mean(dim=1)
    real = text.mask.unsqueeze(-1)
    return text.tokens.where(real, 0).sum(dim=1) / real.sum(dim=1)


def _resize(images: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(n C Y X) uint8 -> (n C size size) in [-1, 1]."""
    pixels = images.float() / 127.5 - 1
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(
            pixels, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
    return pixels.to(dtype)


def _coordinates(size: int) -> Tensor:
    """Row and column of each pixel in [-1, 1] (2 size size), as in CoordConv (Liu et al. 2018)."""
    steps = torch.linspace(-1, 1, size)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"))


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "film_cnn"."""
    register("film_cnn", FiLMConfig, FiLMEncoder)
