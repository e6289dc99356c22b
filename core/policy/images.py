"""Resizing of camera images for vision encoders, and what encoders know of each camera."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F


def resize_images(
    images: Tensor,
    size: int | tuple[int, int],
    method: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """Resize images (n C Y X) -> (n C *size) float32; pixel values are not scaled.

    size: rows and columns; one number for a square.

    Shrinking averages pixels instead of skipping some of them (antialiasing). Images that already
    have this size are only converted to float32. Bicubic interpolation overshoots at edges, so
    "bicubic" expects numbers in [0, 255] and clamps its result to that range.
    """
    images, shape = images.float(), (size, size) if isinstance(size, int) else size
    if images.shape[-2:] == shape:
        return images
    resized = F.interpolate(images, shape, mode=method, antialias=True, align_corners=False)
    return resized.clamp(0, 255) if method == "bicubic" else resized


def carry_cameras(
    own: Tensor, cameras: Sequence[str], former: Tensor, former_cameras: Sequence[str]
) -> Tensor:
    """Return a copy of `own` (V ...) that has the rows of `former` for the cameras of both.

    Row i belongs to camera i of `cameras`, or of `former_cameras`.
    """
    carried = own.clone()
    for index, name in enumerate(cameras):
        if name in former_cameras:
            carried[index] = former[list(former_cameras).index(name)]
    return carried
