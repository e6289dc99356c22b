"""Turns images into the arguments that a model's get_image_features takes."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from core import ConfigError, import_library

# side of an image in pixels, for a model that takes any size and has no default
DEFAULT_SIZE = 224
Colour = tuple[float, float, float]  # values for red, green and blue
GREY: Colour = (0.5, 0.5, 0.5)
# images (n C Y X) -> arguments of get_image_features
Arrange = Callable[[Tensor], dict[str, Tensor]]


def arrangement(model: Any, config: Any) -> Arrange:
    """Choose how images are arranged; raises ConfigError if a model needs more than images."""
    arguments = inspect.signature(model.get_image_features).parameters
    required = [
        argument.name
        for argument in arguments.values()
        if argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD
    ]
    if required != ["pixel_values"]:
        raise ConfigError(
            f"vision_encoder.model: a {type(model).__name__} sees by {', '.join(required)}, and "
            "this component has pixel_values alone; choose another model"
        )
    if "image_grid_thw" in arguments:
        return _patch_arrangement(config, type(model).__name__)
    return as_lists if "pixel_attention_mask" in arguments else as_images


def as_images(images: Tensor) -> dict[str, Tensor]:
    """Pass the images as one batch (n C Y X), for LLaVA, PaliGemma and InternVL."""
    return {"pixel_values": images}


def as_lists(images: Tensor) -> dict[str, Tensor]:
    """Pass each image as a list of one image (n 1 C Y X), for Idefics3 and SmolVLM."""
    # These models take an image of zeros for padding and give it no tokens, so no pixel may be 0.
    visible = torch.where(images == 0, 1e-7, images)
    return {"pixel_values": rearrange(visible, "n c y x -> n 1 c y x")}


def as_patches(images: Tensor, patch: int, merge: int, frames: int) -> dict[str, Tensor]:
    """Pass flat patches and the grid that they form, as Qwen-VL takes them.

    Patches that will be merged into one token follow each other directly.

    patch: length of a patch's side in pixels.
    merge: length of a token's side in patches.
    frames: number of frames in a patch; every frame shows the same image.
    """
    rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
    pattern = "n c (y a p) (x b q) -> (n y x a b) (c t p q)"
    patches = repeat(images, pattern, t=frames, a=merge, b=merge, p=patch, q=patch)
    grid = torch.tensor([[1, rows, columns]], device=images.device)
    return {"pixel_values": patches, "image_grid_thw": grid.expand(len(images), -1)}


def _patch_arrangement(config: Any, model_name: str) -> Arrange:
    vision = getattr(config, "vision_config", None)
    keys = ("patch_size", "spatial_merge_size", "temporal_patch_size")
    sizes: dict[str, Any] = {key: getattr(vision, key, None) for key in keys}
    if missing := [key for key, size in sizes.items() if not isinstance(size, int)]:
        raise ConfigError(
            f"vision_encoder.model: a {model_name} takes patches, and its vision_config does not "
            f"say of what {', '.join(missing)}; choose another model"
        )
    patch, merge, frames = sizes.values()
    return partial(as_patches, patch=patch, merge=merge, frames=frames)


def image_size(requested: int | None, config: Any) -> int:
    """Return the side of an image in pixels: as requested, else the model's, else 224.

    Raises ConfigError if the model would silently cut off the last rows and columns.
    """
    vision = getattr(config, "vision_config", None)
    size = requested or _side(getattr(vision, "image_size", None)) or DEFAULT_SIZE
    patch = _side(getattr(vision, "patch_size", None)) or 1
    unit = patch * getattr(vision, "spatial_merge_size", 1)
    if size % unit:
        raise ConfigError(
            f"vision_encoder.image_size: {size} is no multiple of this model's {unit}; choose one"
        )
    return size


def position_options(model: Any, config: Any, size: int) -> dict[str, bool]:
    """Return the option with which a model resizes its position embeddings to another image size.

    Empty if the images have the size of the model's configuration, or if the model has no such
    option: then it takes any size, or none but its own.
    """
    own = _side(getattr(getattr(config, "vision_config", None), "image_size", None))
    option = "interpolate_pos_encoding"
    takes = any(option in inspect.signature(m.forward).parameters for m in model.modules())
    return {option: True} if takes and own not in (None, size) else {}


@dataclass(frozen=True)
class PixelStatistics:
    """How pixels in [0, 1] become a model's input: (pixels - mean) / std.

    settings: those of the model's image processor; empty if the model has none.
    is_assumed: whether neither the recipe nor an image processor gives one of the two.
    """

    mean: Colour
    std: Colour
    settings: Mapping[str, Any]
    is_assumed: bool

    def as_processor_config(self) -> dict[str, Any]:
        """Return the contents of preprocessor_config.json."""
        normalization = {
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        return {**self.settings, **normalization}


def statistics(mean: Colour | None, std: Colour | None, source: str) -> PixelStatistics:
    """Return mean and standard deviation of the pixels.

    `mean` and `std` are used if they are given; a value that is not given comes from the model's
    image processor. It is 0.5 if the processor does not set it, or if a folder has neither
    processor_config.json nor preprocessor_config.json.

    Raises ConfigError if the hub gives no image processor.
    """
    settings = {} if mean is not None and std is not None else _processor_settings(source)
    processor_mean, processor_std = _processor_statistics(settings)
    return PixelStatistics(
        mean or processor_mean or GREY,
        std or processor_std or GREY,
        settings,
        is_assumed=not (mean or processor_mean) or not (std or processor_std),
    )


def _processor_settings(source: str) -> dict[str, Any]:
    """Return the settings of a model's image processor; empty if a folder has none."""
    transformers = import_library("transformers", extra="vlm")
    try:
        mixin = transformers.ImageProcessingMixin
        settings: dict[str, Any] = mixin.get_image_processor_dict(source)[0]
    except OSError as error:
        # After a failed download, a default could be wrong without anybody noticing.
        if not Path(source).is_dir():
            raise ConfigError(
                f"vision_encoder.model: the hub gives no image processor of '{source}'; set "
                "vision_encoder.mean and std"
            ) from error
        return {}
    return settings


def _processor_statistics(settings: Mapping[str, Any]) -> tuple[Colour | None, Colour | None]:
    """Return the mean and std that an image processor applies to pixels in [0, 1].

    A processor multiplies pixels in [0, 255] by a factor, then subtracts the mean and divides by
    the standard deviation; it can leave out either. (255 f x - m) / s = (x - m / 255 f) / (s / 255
    f).
    """
    if not settings:
        return None, None
    rescales, normalizes = (settings.get(f"do_{step}", True) for step in ("rescale", "normalize"))
    factor = 255 * settings.get("rescale_factor", 1 / 255) if rescales else 255
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not normalizes:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return _scaled(mean, factor), _scaled(std, factor)


def _scaled(colour: Any, factor: float) -> Colour | None:
    if colour is None:
        return None
    red, green, blue = (round(value / factor, 12) for value in colour)
    return red, green, blue


def _side(size: Any) -> int | None:
    """Return the height in a size, which is one number (for a square), or height and width."""
    side: int | None = size[0] if isinstance(size, list | tuple) else size
    return side
