"""The vision encoder of a vision-language model, with its projection to the words' width."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn

from core import ConfigError, TokenGroup, VisionEncoder, resize_images
from core.weights import Pretrained
from plugins.vlms.huggingface.configuration import as_config_error
from plugins.vlms.huggingface.grid import MODELS, token_grid
from plugins.vlms.huggingface.model import (
    CPU,
    build_part,
    repeated_blocks,
    robovlms_names,
)
from plugins.vlms.huggingface.pixels import (
    Colour,
    arrangement,
    image_size,
    position_options,
    statistics,
)

PositiveNumber = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class VisionConfig:
    """The vision encoder of a vision-language model, and how images are prepared for it."""

    model: str = field(metadata={"located": True})
    """folder that holds config.json (a relative path starts at the recipe's folder), or the name of
    a model on the Hugging Face hub.
    """
    image_size: Annotated[int, Gt(0)] | None = None
    """rows and columns to which every camera is resized, pixels; default: the size in the model's
    configuration, or 224 if the configuration has no size. For another size, the model resizes its
    position embeddings, if it can.
    """
    mean: Colour | None = None
    """mean of red, green and blue in [0, 1], which is subtracted from the pixels; default: the mean
    in the model's image processor, or 0.5 if the model has no image processor.
    """
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = None
    """standard deviation of red, green and blue, by which the pixels are divided; default: the
    standard deviation in the model's image processor, or 0.5 if the model has no image processor.
    """


class HuggingFaceVision(VisionEncoder):
    """Runs all cameras and frames as one batch.

    A frame's tokens are its cameras' tokens, sorted by camera name. Weights that influence no token
    do not train: LLaVA, for example, does not use the outputs of the last layers. To load the
    model's published weights, set `pretrained` in the recipe to true, or to the same folder as
    `model`.

    Raises ConfigError if the model cannot be loaded, if it cannot be split into parts, or if it
    does not take images of the configured size.
    """

    def __init__(
        self, config: VisionConfig, *, cameras: Mapping[str, tuple[int, int, int]]
    ) -> None:
        super().__init__()
        self.cameras = sorted(cameras)
        wrong = [
            f"'{name}' has {cameras[name][0]}" for name in self.cameras if cameras[name][0] != 3
        ]
        if wrong:
            raise ConfigError(
                f"data.cameras: the vision encoder sees red, green and blue; {', '.join(wrong)} "
                "channels"
            )
        self.source = config.model
        self.part = build_part(config.model, "vision")
        self.model = self.part.module
        self.size = image_size(config.image_size, self.part.config)
        self.arrange = arrangement(self.model, self.part.config)
        self.position_options = position_options(self.model, self.part.config, self.size)
        self.mean: Tensor
        self.std: Tensor
        self.statistics = statistics(config.mean, config.std, config.model)
        assumption = f"mean and std of the pixels are 0.5: '{config.model}' has no image processor"
        self.assumptions = (assumption,) if self.statistics.is_assumed else ()
        for name, values in (("mean", self.statistics.mean), ("std", self.statistics.std)):
            buffer = torch.tensor(values, dtype=torch.get_default_dtype(), device=CPU).view(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
        tokens = self._encode_grey_image()
        _freeze_all_but_sources(self.model, tokens)
        _, count, self.width = tokens.shape
        self.grid: Tensor | None
        self.register_buffer("grid", self._grid(count), persistent=False)

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of the vision encoder."""
        return repeated_blocks(self.model)

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:  # noqa: ARG002
        """{camera: (B T C Y X) uint8} -> (B T V*N width).

        For Qwen2-VL and Qwen2.5-VL, the result includes each token's row and column.
        """
        batch, window = images[self.cameras[0]].shape[:2]
        resized = [
            resize_images(images[name].flatten(0, 1), self.size, "bicubic") for name in self.cameras
        ]
        pixels = (torch.stack(resized, dim=1) / 255 - self.mean) / self.std  # (B*T V C Y X)
        tokens = self._encode(pixels.flatten(0, 1).to(self.mean.dtype))
        frames = rearrange(tokens, "(b t v) n d -> b t (v n) d", b=batch, t=window)
        return TokenGroup(frames, grid=self.grid)

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the vision encoder and the projection, strictly.

        Raises ConfigError that lists what does not fit.
        """
        self.part.load("vision", weights)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as transformers does."""
        return self.part.publish()

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return robovlms_names(self.publish())

    def describe(self) -> dict[str, Any]:
        """Return the model's configuration without the language model's configuration."""
        return self.part.description

    def publish_files(self, folder: Path) -> None:
        """Write the image processor's settings, with the mean and std that the policy uses."""
        settings = json.dumps(self.statistics.as_processor_config(), indent=2)
        (folder / "preprocessor_config.json").write_text(settings, encoding="utf-8")

    def _encode(self, pixels: Tensor) -> Tensor:
        """(n C size size) -> (n N D)."""
        features = self.model.get_image_features(
            **self.arrange(pixels), **self.position_options
        ).pooler_output
        return features if isinstance(features, Tensor) else torch.stack(tuple(features))

    def _grid(self, count: int) -> Tensor | None:
        """Return the row and column of each camera's tokens (V*N 2); None if tokens have no grid.

        count: number of tokens in a camera's image (N).
        """
        if self.part.config.model_type not in MODELS:
            return None
        side = math.isqrt(count)  # images are squares
        with CPU:
            return token_grid(side, side).repeat(len(self.cameras), 1)

    def _encode_grey_image(self) -> Tensor:
        """Return the tokens of one grey image (1 N D).

        These tokens show how many tokens an image has, how wide tokens are, and which weights
        influence tokens.
        """
        shape = (1, 3, self.size, self.size)
        image = torch.full(shape, 0.25, dtype=self.mean.dtype, device=CPU)
        self.model.eval()
        what = (
            f"vision_encoder.image_size: '{self.source}' does not take images of {self.size} x "
            f"{self.size} pixels"
        )
        with CPU, torch.enable_grad(), as_config_error(what):
            tokens = self._encode(image)
        self.model.train()
        return tokens


def _freeze_all_but_sources(model: nn.Module, tokens: Tensor) -> None:
    """Freeze the weights that influence no token; the other weights train."""
    sources = {id(weight) for weight in _sources(tokens)}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in sources)


def _sources(result: Tensor) -> Iterator[Tensor]:
    """Yield every weight on which a result depends, by a walk through its autograd graph."""
    waiting, visited = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in visited:
            visited.add(node)
            waiting += [earlier for earlier, _ in node.next_functions]
            if isinstance(weight := getattr(node, "variable", None), Tensor):
                yield weight
