"""Random views of the images while training, on the device; when acting, a crop is taken from the
middle.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts.generator import Generator
from core.errors import ConfigError, did_you_mean
from core.recipe.sections import AugmentationConfig

GREY = (0.2989, 0.587, 0.114)  # share of red, green and blue in brightness (ITU-R BT.601)


class Augmentation(nn.Module):
    """Shifts, crops and recolours images: each window and each camera on its own, a window's frames
    alike.

    cameras: the names that there are; ConfigError where the configuration shifts another.
    """

    def __init__(self, config: AugmentationConfig, cameras: Iterable[str]) -> None:
        super().__init__()
        self.config = config
        known = sorted(cameras)
        self.reach = (
            dict(config.shift)
            if isinstance(config.shift, Mapping)
            else dict.fromkeys(known, config.shift)
        )
        if unknown := [name for name in self.reach if name not in known]:
            raise ConfigError(
                [f"augmentation.shift: no camera '{n}'{did_you_mean(n, known)}" for n in unknown]
            )

    def forward(self, images: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """{camera: (B T C Y X) uint8} -> the same shapes; random in training mode, the middle else."""
        device = next(iter(images.values())).device.type
        with torch.autocast(device, enabled=False):  # bfloat16 cannot say which of 224 pixels
            return {
                name: self._view(x, self.reach.get(name, 0), generator)
                for name, x in images.items()
            }

    def _view(self, images: Tensor, reach: int, generator: Generator) -> Tensor:
        if not self.training:
            return (
                images
                if self.config.crop == 1
                else crop(images, self.config.crop, images.new_zeros(1, 1, 2).float())
            )
        if reach:
            images = shift(images, self._draw(images, reach + 0.5, 2, generator).round())
        if self.config.crop < 1:
            images = crop(
                images, self.config.crop, self._draw(images, 1 - self.config.crop, 2, generator)
            )
        return self._recolour(images, generator)

    def _recolour(self, images: Tensor, generator: Generator) -> Tensor:
        """Change what the configuration names, each by a random amount."""
        config = self.config
        for change, amount in (
            (brighten, config.brightness),
            (contrast, config.contrast),
            (saturate, config.saturation),
            (turn_hue, config.hue),
        ):
            if amount:
                images = change(images, self._draw(images, amount, 1, generator)[..., None, None])
        return images

    def _draw(self, images: Tensor, reach: float, count: int, generator: Generator) -> Tensor:
        """Numbers in [-reach, reach] for each window, or each frame -> (B T count), T = 1 where
        frames are alike.
        """
        frames = images.shape[1] if self.config.per_frame else 1
        return (generator.uniform(len(images), frames, count) * 2 - 1) * reach


def shift(images: Tensor, offset: Tensor) -> Tensor:
    """Move (B T C Y X) by whole pixels (B T' 2), down and right; edges are repeated (Kostrikov et
    al. 2021, DrQ).
    """
    rows, columns = (
        (torch.arange(size, device=images.device) - offset[..., axis, None].long()).clamp(
            0, size - 1
        )  # (B T' size)
        for axis, size in enumerate(images.shape[-2:])
    )
    moved = images.take_along_dim(rows[:, :, None, :, None], dim=3)
    return moved.take_along_dim(columns[:, :, None, None, :], dim=4)


def crop(images: Tensor, share: float, centre: Tensor) -> Tensor:
    """Enlarge the part of (B T C Y X) that is `share` of each side to the whole size, bilinearly.

    centre (B T' 2): where its middle lies, right and down, in half sides from the image's own.
    """
    batch, window = images.shape[:2]
    place = torch.zeros(batch, window, 2, 3, device=images.device, dtype=torch.float32)
    place[..., 0, 0] = place[..., 1, 1] = share
    place[..., 2] = centre
    flat = images.flatten(0, 1).float()
    grid = F.affine_grid(place.flatten(0, 1), list(flat.shape), align_corners=False)
    seen = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return _whole(seen).view(batch, window, *flat.shape[1:])


def brighten(images: Tensor, amount: Tensor) -> Tensor:
    """Multiply by 1 + amount."""
    return _whole(images * (1 + amount))


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Stretch by 1 + amount around each frame's mean brightness."""
    mean = _grey(images).mean(dim=(-3, -2, -1), keepdim=True)
    return _whole(mean + (images - mean) * (1 + amount))


def saturate(images: Tensor, amount: Tensor) -> Tensor:
    """Stretch by 1 + amount away from grey."""
    grey = _grey(images)
    return _whole(grey + (images - grey) * (1 + amount))


def turn_hue(images: Tensor, amount: Tensor) -> Tensor:
    """Turn colours around the axis of grey by `amount` of a full turn, in YIQ, so that brightness
    stays.
    """
    to_yiq = images.new_tensor(
        [GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], dtype=torch.float32
    )
    angle = 2 * math.pi * amount[..., 0, 0]  # (B T' 1)
    sine, cosine, one = angle.sin(), angle.cos(), torch.ones_like(angle)
    turn = torch.stack(
        [one, 0 * one, 0 * one, 0 * one, cosine, -sine, 0 * one, sine, cosine], dim=-1
    )
    matrix = (
        torch.linalg.inv_ex(to_yiq).inverse @ turn.view(*angle.shape[:2], 3, 3) @ to_yiq
    )  # (B T' 3 3)
    return _whole(
        torch.einsum(
            "btij,btjyx->btiyx", matrix.expand(-1, images.shape[1], -1, -1), images.float()
        )
    )


def _grey(images: Tensor) -> Tensor:
    """(B T 3 Y X) -> (B T 1 Y X) float32."""
    weights = torch.tensor(GREY, device=images.device, dtype=torch.float32).view(3, 1, 1)
    return (images * weights).sum(dim=-3, keepdim=True)


def _whole(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)
