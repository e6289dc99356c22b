"""What sees in a vision-language model of transformers: its vision encoder with the projection into
the word space.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import ConfigError, TokenGroup, VisionEncoder
from core.weights import Pretrained
from plugins.vlms.huggingface.grid import MODELS, token_grid
from plugins.vlms.huggingface.model import CPU, build_share, one_line, repeated_blocks
from plugins.vlms.huggingface.pixels import Colour, arrangement, image_size, statistics

PositiveNumber = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class VisionConfig:
    """The vision of a vision-language model, and how images reach it."""

    model: str = field(metadata={"located": True})
    """folder with config.json, relative to the recipe's, or a name on the Hugging Face hub."""
    image_size: Annotated[int, Gt(0)] | None = None
    """rows and columns to which every camera is resized, pixels; the model's own unless said, or
    224.
    """
    mean: Colour | None = None
    """of red, green and blue in [0, 1], subtracted; what the model's image processor says unless
    said, or 0.5.
    """
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = None
    """of red, green and blue, divided by; what the model's image processor says unless said, or
    0.5.
    """


class HuggingFaceVision(VisionEncoder):
    """Runs all cameras and frames as one batch; a frame's tokens are its cameras' tokens, sorted by
    camera name.

    Weights on which no token depends, as those behind LLaVA's feature layer, do not train.
    Raises ConfigError where the model is not to be had, is not made of these pieces, or does not
    take such images. `pretrained` takes the model's folder.
    """

    def __init__(
        self, config: VisionConfig, *, cameras: Mapping[str, tuple[int, int, int]]
    ) -> None:
        super().__init__()
        _check_colours(cameras)
        self.source = config.model
        self.share = build_share(config.model, "vision")
        self.model = self.share.module
        self.cameras = sorted(cameras)
        self.size = image_size(config.image_size, self.share.config)
        self.arrange = arrangement(self.model, self.share.config)
        for name, values in zip(
            ("mean", "std"), statistics(config.mean, config.std, config.model), strict=True
        ):
            buffer = torch.tensor(values, dtype=torch.get_default_dtype(), device=CPU).view(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        count, self.width = self._try_out()
        self.grid: Tensor | None
        self.register_buffer("grid", self._grid(count), persistent=False)

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of what sees."""
        return repeated_blocks(self.model)

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:  # noqa: ARG002
        """{camera: (B T C Y X) uint8} -> (B T V*N width), with rows and columns where a model's
        tokens have them.
        """
        batch, window = images[self.cameras[0]].shape[:2]
        resized = [self._resize(images[name].flatten(0, 1)) for name in self.cameras]
        pixels = (torch.stack(resized, dim=1) / 255 - self.mean) / self.std  # (B*T V C Y X)
        tokens = self._encode(pixels.flatten(0, 1).to(self.mean.dtype))
        return TokenGroup(
            rearrange(tokens, "(b t v) n d -> b t (v n) d", b=batch, t=window), grid=self.grid
        )

    def load_pretrained(self, weights: Pretrained) -> None:
        """Take vision encoder and projection, strictly; ConfigError lists whatever does not fit."""
        self.share.load("vision", weights)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as transformers does."""
        return self.share.publish()

    def describe(self) -> dict[str, Any]:
        """All of the model's configuration but the language model's."""
        return self.share.description

    def _resize(self, images: Tensor) -> Tensor:
        """(n C Y X) uint8 -> (n C size size) float32 in [0, 255]."""
        images = images.float()
        if images.shape[-2:] == (self.size, self.size):
            return images
        resized = F.interpolate(
            images, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False
        )
        return resized.clamp(0, 255)  # bicubic curves overshoot at edges

    def _encode(self, pixels: Tensor) -> Tensor:
        """(n C size size) -> (n N D)."""
        features = self.model.get_image_features(**self.arrange(pixels)).pooler_output
        return features if isinstance(features, Tensor) else torch.stack(tuple(features))

    def _grid(self, count: int) -> Tensor | None:
        """Row and column of all cameras' tokens, of which each has `count` (V*N 2); None where they
        have none.
        """
        if self.share.config.model_type not in MODELS:
            return None
        side = math.isqrt(count)  # images are squares
        with CPU:
            return token_grid(side, side).repeat(len(self.cameras), 1)

    def _try_out(self) -> tuple[int, int]:
        """Encode one grey image: find tokens and width, and freeze the weights on which its tokens
        do not depend.
        """
        pixels = torch.full((1, 3, self.size, self.size), 0.25, dtype=self.mean.dtype, device=CPU)
        self.model.eval()
        what = f"vision_encoder.image_size: '{self.source}' does not take images of {self.size} x {self.size} pixels"
        with CPU, torch.enable_grad(), one_line(what):
            tokens = self._encode(pixels)
        self.model.train()
        used = {id(weight) for weight in _leaves(tokens)}
        for weight in self.model.parameters():
            weight.requires_grad_(id(weight) in used)
        return tokens.shape[1], tokens.shape[2]


def _check_colours(cameras: Mapping[str, tuple[int, int, int]]) -> None:
    if strange := [
        f"'{name}' has {shape[0]}" for name, shape in sorted(cameras.items()) if shape[0] != 3
    ]:
        raise ConfigError(
            f"data.cameras: the vision encoder sees red, green and blue; {', '.join(strange)} channels"
        )


def _leaves(result: Tensor) -> Iterator[Tensor]:
    """Every tensor that asks for a gradient and on which a result depends."""
    waiting, visited = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in visited:
            visited.add(node)
            waiting += [before for before, _ in node.next_functions]
            if isinstance(leaf := getattr(node, "variable", None), Tensor):
                yield leaf
