"""Resizing of camera images for vision encoders."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F


def resize_images(
    images: Tensor, size: int, method: Literal["bilinear", "bicubic"] = "bilinear"
) -> Tensor:
    """Resize images (n C Y X) to squares -> (n C size size) float32; pixel values are not scaled.

    Shrinking averages pixels instead of skipping some of them (antialiasing). Images that already
    have this size are only converted to float32. Bicubic interpolation overshoots at edges, so
    "bicubic" expects numbers in [0, 255] and clamps its result to that range.
    """
    images = images.float()
    if images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images, (size, size), mode=method, antialias=True, align_corners=False)
    return resized.clamp(0, 255) if method == "bicubic" else resized
