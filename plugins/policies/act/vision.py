"""ACT's vision encoder: the last feature map of a ResNet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn

from core import (
    ConfigError,
    TokenGroup,
    VisionEncoder,
    build_resnet,
    carry_cameras,
    resize_images,
    resnet_blocks,
    resnet_tensors,
)
from core.weights import LeRobotFiles, Pretrained, fill
from plugins.policies.act.names import PROJECTION, RESNET, check_settings, vision_tensors

STRIDE = 32  # side of a cell of the last map, in pixels


@dataclass(frozen=True)
class ACTVisionConfig:
    """A ResNet without its classifier, and a projection of its last map."""

    model: str = "resnet18"
    """name of a ResNet of timm (He et al. 2016); ACT's published weights are of "resnet18"."""
    image_size: Annotated[int, Gt(0)] | None = None
    """rows and columns to which every camera is resized, pixels; default: images stay as they were
    recorded, as in ACT. A cell of the map is 32 pixels wide.
    """
    width: Annotated[int, Gt(0)] = 512
    """width of the tokens."""
    norm: Literal["frozen_batch", "group"] = "frozen_batch"
    """"frozen_batch": batch norms whose statistics and weights stay as published, as in ACT, for a
    ResNet that starts from published weights; "group": group norms, which train, for a ResNet that
    starts from random weights.
    """


class ACTVision(VisionEncoder):
    """Turns each cell of each camera's map into a token, with the cell's row and column as grid.

    Cameras share all weights; their tokens come in the order of their names. Pixels are scaled with
    the mean and standard deviation of ImageNet, or with those of published weights.

    `pretrained` takes weights of LeRobot's ACT, or a ResNet under torchvision's names, which are
    timm's, too; `pretrained = true` is the ResNet that torchvision trained on ImageNet.

    Raises ConfigError if timm has no such ResNet, or if the cameras' maps do not have the same
    number of cells.
    """

    def __init__(
        self, config: ACTVisionConfig, *, cameras: Mapping[str, tuple[int, int, int]]
    ) -> None:
        super().__init__()
        _check_cells(config, cameras)
        self.config, self.width = config, config.width
        self.source = f"timm/{config.model}.tv_in1k"
        self.cameras = sorted(cameras)
        self.model = build_resnet(config.model, config.norm)
        self.projection = nn.Conv2d(self.model.num_features, config.width, kernel_size=1)
        # Only LeRobot's weights hold the projection.
        self.extra_parameters: tuple[str, ...] = ("projection.weight", "projection.bias")
        # of every camera (V 3 1 1); a checkpoint holds them, for published weights may change them
        for name in ("mean", "std"):
            values = torch.tensor(self.model.pretrained_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, values.repeat(len(cameras), 1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The ResNet's residual blocks, which can be recomputed and compiled one by one."""
        return resnet_blocks(self.model)

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:  # noqa: ARG002
        """{camera: (B T C Y X) uint8} -> (B T N width), with the grid (N 2)."""
        maps = [self._encode(images[name], index) for index, name in enumerate(self.cameras)]
        tokens = [rearrange(x, "b t d y x -> b t (y x) d") for x in maps]
        grids = [
            torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in x.shape[-2:]))
            for x in maps
        ]
        return TokenGroup(torch.cat(tokens, dim=2), grid=torch.cat(grids))

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the ResNet's weights and, if they are LeRobot's, the projection's, strictly.

        Raises ConfigError that lists what does not fit.
        """
        if self.config.norm == "group":
            raise ConfigError(
                f"pretrained: '{weights.source}' has batch norms, and norm is \"group\"; "
                'set norm = "frozen_batch"'
            )
        if any(name.startswith(RESNET) for name in weights.tensors):
            self._load_lerobot(weights)
        else:
            fill(self.model.state_dict(), resnet_tensors(weights.tensors), weights.source)

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the pixels' statistics of the cameras that both have; others have ImageNet's."""
        adapted = dict(tensors)
        for kind in ("mean", "std"):
            own = getattr(self, kind)
            adapted[kind] = carry_cameras(own, self.cameras, tensors[kind], former.cameras)
        return adapted

    def _load_lerobot(self, weights: Pretrained) -> None:
        """Load the weights of LeRobot's ACT: the ResNet, its projection, and pixels' statistics."""
        check_settings(weights)
        own = {f"{RESNET}{name}": x for name, x in self.model.state_dict().items()}
        own |= {f"{PROJECTION}{name}": x for name, x in self.projection.state_dict().items()}
        fill(own, vision_tensors(weights), weights.source)
        self.extra_parameters = ()
        mean, std = LeRobotFiles(weights).pixel_statistics(self.cameras) or (self.mean, self.std)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def _encode(self, images: Tensor, camera: int) -> Tensor:
        """Images of one camera (B T C Y X) uint8 -> their map (B T width Y/32 X/32)."""
        batch, size = len(images), self.config.image_size
        pixels = images.flatten(0, 1)
        pixels = pixels.float() if size is None else resize_images(pixels, size)
        pixels = (pixels / 255 - self.mean[camera]) / self.std[camera]
        features = self.projection(self.model.forward_features(pixels.to(self.mean.dtype)))
        return rearrange(features, "(b t) d y x -> b t d y x", b=batch)  # type: ignore[no-any-return]


def _check_cells(config: ACTVisionConfig, cameras: Mapping[str, tuple[int, int, int]]) -> None:
    """Raise ConfigError if the cameras' maps do not have the same number of cells."""
    cells = {
        name: -(-rows // STRIDE) * -(-columns // STRIDE)
        for name, (_, rows, columns) in cameras.items()
    }
    if config.image_size is None and len(set(cells.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in cells.items())
        raise ConfigError(
            f"vision_encoder.image_size: the cameras' maps have different numbers of cells "
            f"({counts}); set it to one size for all"
        )
