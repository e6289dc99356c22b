"""Random changes of images in training, on the device; when acting, images are centre-cropped."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts.generator import Generator
from core.errors import ConfigError, did_you_mean
from core.recipe.sections import AugmentationConfig

# share of red, green and blue in brightness (ITU-R BT.601)
GREY = (0.2989, 0.587, 0.114)


class Augmentation(nn.Module):
    """Shifts, crops and recolours images.

    The amount of each change is drawn for each window and each camera. All frames of a window get
    the same amount, unless the configuration sets `per_frame`.

    cameras: names of all cameras.

    Raises ConfigError if the configuration names a camera that is not among these cameras.
    """

    def __init__(self, config: AugmentationConfig, cameras: Iterable[str]) -> None:
        super().__init__()
        self.config = config
        known = sorted(cameras)
        if isinstance(config.shift, Mapping):
            self.largest_shift = dict(config.shift)
        else:
            self.largest_shift = dict.fromkeys(known, config.shift)
        if unknown := [name for name in self.largest_shift if name not in known]:
            raise ConfigError(
                [f"augmentation.shift: no camera '{n}'{did_you_mean(n, known)}" for n in unknown]
            )

    def forward(self, images: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """{camera: (B T C Y X) uint8} -> the same shapes and type; random in training mode only."""
        device = next(iter(images.values())).device.type
        with torch.autocast(device, enabled=False):  # bfloat16 is too coarse for pixel positions
            return {
                name: self._change(x, self.largest_shift.get(name, 0), generator)
                for name, x in images.items()
            }

    def _change(self, images: Tensor, largest_shift: int, generator: Generator) -> Tensor:
        config = self.config
        if not self.training:
            if config.crop == 1:
                return images
            return crop(images, config.crop, images.new_zeros(1, 1, 2).float())
        if largest_shift:
            images = shift(images, self._draw(images, largest_shift + 0.5, 2, generator).round())
        if config.crop < 1:
            images = crop(images, config.crop, self._draw(images, 1 - config.crop, 2, generator))
        for change_colour, largest_change in (
            (brighten, config.brightness),
            (contrast, config.contrast),
            (saturate, config.saturation),
            (turn_hue, config.hue),
        ):
            if largest_change:
                amount = self._draw(images, largest_change, 1, generator)
                images = change_colour(images, amount[..., None, None])
        return images

    def _draw(self, images: Tensor, limit: float, count: int, generator: Generator) -> Tensor:
        """Draw numbers in [-limit, limit]: (B T count), or (B 1 count) if frames share them."""
        frames = images.shape[1] if self.config.per_frame else 1
        return (generator.uniform(len(images), frames, count) * 2 - 1) * limit


def shift(images: Tensor, offset: Tensor) -> Tensor:
    """Move images (B T C Y X) down and right by whole pixels (B T' 2); edge pixels are repeated.

    T' is T, or 1 to move all frames of a window by the same number of pixels. The method is that of
    Kostrikov et al. 2021 (DrQ).
    """

    def source(axis: int, size: int) -> Tensor:
        """Return the old index of each row or each column of the moved image (B T' size)."""
        index = torch.arange(size, device=images.device) - offset[..., axis, None].long()
        return index.clamp(0, size - 1)

    rows, columns = source(0, images.shape[-2]), source(1, images.shape[-1])
    moved = images.take_along_dim(rows[:, :, None, :, None], dim=3)
    return moved.take_along_dim(columns[:, :, None, None, :], dim=4)


def crop(images: Tensor, share: float, centre: Tensor) -> Tensor:
    """Cut out a rectangle of images (B T C Y X), and enlarge it to the images' size, bilinearly.

    share: the share of each side of the image that the rectangle covers.
    centre: (B T' 2), how far the rectangle's centre lies to the right of the image's middle and
        below it; 1 is half a side of the image.
    """
    batch, window = images.shape[:2]
    transform = torch.zeros(batch, window, 2, 3, device=images.device, dtype=torch.float32)
    transform[..., 0, 0] = transform[..., 1, 1] = share
    transform[..., 2] = centre
    flat = images.flatten(0, 1).float()
    grid = F.affine_grid(transform.flatten(0, 1), list(flat.shape), align_corners=False)
    cropped = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return _to_uint8(cropped).view(batch, window, *flat.shape[1:])


def brighten(images: Tensor, amount: Tensor) -> Tensor:
    """Multiply each pixel by 1 + amount."""
    return _to_uint8(images * (1 + amount))


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Multiply each pixel's distance from the frame's mean brightness by 1 + amount."""
    mean = _grey(images).mean(dim=(-3, -2, -1), keepdim=True)
    return _to_uint8(mean + (images - mean) * (1 + amount))


def saturate(images: Tensor, amount: Tensor) -> Tensor:
    """Multiply each pixel's distance from grey by 1 + amount."""
    grey = _grey(images)
    return _to_uint8(grey + (images - grey) * (1 + amount))


def turn_hue(images: Tensor, amount: Tensor) -> Tensor:
    """Turn hues by `amount` of a full turn, around the grey axis of YIQ; brightness stays."""
    to_yiq = images.new_tensor(
        [GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], dtype=torch.float32
    )
    angle = 2 * math.pi * amount[..., 0, 0]  # (B T' 1)
    sine, cosine, one = angle.sin(), angle.cos(), torch.ones_like(angle)
    zero = 0 * one
    turn = torch.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], dim=-1)
    turn = turn.view(*angle.shape[:2], 3, 3)
    matrix = torch.linalg.inv_ex(to_yiq).inverse @ turn @ to_yiq  # (B T' 3 3)
    matrix = matrix.expand(-1, images.shape[1], -1, -1)
    return _to_uint8(torch.einsum("btij,btjyx->btiyx", matrix, images.float()))


def _grey(images: Tensor) -> Tensor:
    """Return the brightness of images: (B T 3 Y X) -> (B T 1 Y X) float32."""
    weights = torch.tensor(GREY, device=images.device, dtype=torch.float32).view(3, 1, 1)
    return (images * weights).sum(dim=-3, keepdim=True)


def _to_uint8(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)
