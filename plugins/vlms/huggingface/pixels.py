"""How images are laid out for a model of transformers, told from the arguments of its
get_image_features.
"""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from core import ConfigError, import_library

ANY_SIZE = 224  # where a model takes any size and names none
Colour = tuple[float, float, float]  # of red, green and blue
GREY: Colour = (0.5, 0.5, 0.5)
Arrange = Callable[
    [Tensor], dict[str, Tensor]
]  # pixels (n C Y X) -> arguments of get_image_features


def arrangement(model: Any, config: Any) -> Arrange:
    """Choose the layout; ConfigError where a model asks for more than pixels can tell."""
    arguments = inspect.signature(model.get_image_features).parameters
    needed = [
        a.name
        for a in arguments.values()
        if a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD
    ]
    if needed != ["pixel_values"]:
        raise ConfigError(
            f"vision_encoder.model: a {type(model).__name__} sees by {', '.join(needed)}, and this component has "
            "pixel_values alone; choose another model"
        )
    if "image_grid_thw" in arguments:
        return _patches_of(config, type(model).__name__)
    return as_lists if "pixel_attention_mask" in arguments else as_images


def as_images(pixels: Tensor) -> dict[str, Tensor]:
    """One image after the other, as LLaVA, PaliGemma and InternVL take them."""
    return {"pixel_values": pixels}


def as_lists(pixels: Tensor) -> dict[str, Tensor]:
    """A list of one image each (n 1 C Y X), as Idefics3 and SmolVLM take them."""
    # An image of nothing but zeros counts as padding there, and would get no tokens.
    return {
        "pixel_values": rearrange(torch.where(pixels == 0, 1e-7, pixels), "n c y x -> n 1 c y x")
    }


def as_patches(pixels: Tensor, patch: int, merge: int, frames: int) -> dict[str, Tensor]:
    """Flat patches, those that become one token side by side, and the grid they form, as Qwen-VL
    takes them.

    patch: pixels of a patch's side. merge: patches of a token's side. frames: of a patch; an image
    is shown in all.
    """
    rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    pattern = "n c (y a p) (x b q) -> (n y x a b) (c t p q)"
    patches = repeat(pixels, pattern, t=frames, a=merge, b=merge, p=patch, q=patch)
    grid = torch.tensor([[1, rows, columns]], device=pixels.device)
    return {"pixel_values": patches, "image_grid_thw": grid.expand(len(pixels), -1)}


def _patches_of(config: Any, kind: str) -> Arrange:
    vision = getattr(config, "vision_config", None)
    keys = ("patch_size", "spatial_merge_size", "temporal_patch_size")
    sizes: dict[str, Any] = {key: getattr(vision, key, None) for key in keys}
    if lacking := [key for key, size in sizes.items() if not isinstance(size, int)]:
        raise ConfigError(
            f"vision_encoder.model: a {kind} takes patches, and its vision_config does not say of what "
            f"{', '.join(lacking)}; choose another model"
        )
    patch, merge, frames = sizes.values()
    return partial(as_patches, patch=patch, merge=merge, frames=frames)


def image_size(requested: int | None, config: Any) -> int:
    """Pixels of an image's side; ConfigError for a number of which a model would silently cut off a
    rest.
    """
    vision = getattr(config, "vision_config", None)
    size = requested or _side(getattr(vision, "image_size", None)) or ANY_SIZE
    unit = (_side(getattr(vision, "patch_size", None)) or 1) * getattr(
        vision, "spatial_merge_size", 1
    )
    if size % unit:
        raise ConfigError(
            f"vision_encoder.image_size: {size} is no multiple of this model's {unit}; choose one"
        )
    return size


def statistics(mean: Colour | None, std: Colour | None, source: str) -> tuple[Colour, Colour]:
    """Mean and standard deviation of the pixels: those given, else those of the model's image
    processor.

    0.5 for a folder without processor_config.json and preprocessor_config.json; ConfigError where
    the hub gives none.
    """
    if mean is not None and std is not None:
        return mean, std
    transformers = import_library("transformers", extra="vlm")
    try:
        settings: dict[str, Any] = transformers.ImageProcessingMixin.get_image_processor_dict(
            source
        )[0]
    except OSError as error:
        if not Path(
            source
        ).is_dir():  # perhaps the network failed, and other numbers would be wrong without a word
            reason = (
                f"the hub gives no image processor of '{source}'; set vision_encoder.mean and std"
            )
            raise ConfigError(f"vision_encoder.model: {reason}") from error
        settings = {}
    return mean or settings.get("image_mean") or GREY, std or settings.get("image_std") or GREY


def _side(size: Any) -> int | None:
    """Of a size that a configuration gives as one number or as rows and columns."""
    side: int | None = size[0] if isinstance(size, list | tuple) else size
    return side
