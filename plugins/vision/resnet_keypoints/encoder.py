"""A ResNet that gives one token per camera, made of keypoints, as in Diffusion Policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import (
    ConfigError,
    TokenGroup,
    VisionEncoder,
    build_resnet,
    carry_cameras,
    expected_places,
    resize_images,
    resnet_blocks,
    resnet_tensors,
)
from core.weights import LeRobotFiles, Pretrained, fill
from plugins.vision.resnet_keypoints.lerobot import (
    check_files,
    encoder_tensors,
    places_of_cameras,
    published_names,
)

Pixels = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class ResNetKeypointsConfig:
    """A ResNet, keypoints in its last map, and a layer over their places (Chi et al. 2023)."""

    model: str = "resnet18"
    """name of a ResNet of timm (He et al. 2016); LeRobot's published weights are of "resnet18"."""
    norm: Literal["group", "frozen_batch"] = "group"
    """"group": group norms, which train, as in Diffusion Policy, for a ResNet that starts from
    random weights or from LeRobot's; "frozen_batch": batch norms whose statistics and weights stay
    as published, for a ResNet that starts from ImageNet's.
    """
    keypoints: Annotated[int, Gt(0)] = 32
    """number of keypoints per camera."""
    width: Annotated[int, Gt(0)] = 64
    """width of the tokens; in LeRobot's weights, twice the number of keypoints."""
    project_to: Annotated[int, Gt(0)] | None = None
    """width to which a further linear layer projects the tokens, as in LeRobot's VQ-BeT; default:
    there is none.
    """
    per_camera: bool = False
    """whether each camera has weights of its own; if not, all share them, as by default in
    LeRobot.
    """
    image_size: tuple[Pixels, Pixels] | None = None
    """rows and columns to which every camera is resized, pixels; default: images stay as they were
    recorded.
    """
    crop_size: tuple[Pixels, Pixels] | None = None
    """rows and columns that are cut out of the middle of each image, pixels; default: all. If
    `augmentation.shift` is half of what is cut away, training cuts them out at random places.
    """


class ResNetKeypoints(VisionEncoder):
    """Turns each camera's image into one token: ReLU(linear(places of keypoints)).

    Tokens come in the order of the cameras' names. Pixels are scaled with the mean and standard
    deviation of ImageNet, or with those of published weights. It does not read the instruction.

    `pretrained` takes weights of LeRobot's Diffusion Policy or VQ-BeT, or a ResNet under
    torchvision's names, which are timm's, too; `pretrained = true` is the ResNet that torchvision
    trained on ImageNet.

    Raises ConfigError if timm has no such ResNet, or if `crop_size` is larger than an image.
    """

    def __init__(
        self, config: ResNetKeypointsConfig, *, cameras: Mapping[str, tuple[int, int, int]]
    ) -> None:
        super().__init__()
        _check_crop(config, cameras)
        self.config, self.width = config, config.project_to or config.width
        self.cameras, self.count = sorted(cameras), len(cameras)
        self.source = f"timm/{config.model}.tv_in1k"
        self.encoders = nn.ModuleList(
            CameraEncoder(config) for _ in range(self.count if config.per_camera else 1)
        )
        self.projection = nn.Linear(config.width, self.width) if config.project_to else None
        # Only LeRobot's weights hold what comes after the ResNet.
        self.extra_parameters = tuple(
            name for name, _ in self.named_parameters() if ".resnet." not in name
        )
        # of every camera (V 3 1 1); a checkpoint holds them, for published weights may change them
        for name in ("mean", "std"):
            values = torch.tensor(self._resnets()[0].pretrained_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, values.repeat(self.count, 1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    @property
    def blocks(self) -> list[nn.Module]:
        """The ResNets' residual blocks, which can be recomputed and compiled one by one."""
        return [block for resnet in self._resnets() for block in resnet_blocks(resnet)]

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:  # noqa: ARG002
        """{camera: (B T C Y X) uint8} -> (B T V width)."""
        tokens = [
            self.encoders[index if self.config.per_camera else 0](
                self._scale(images[name].flatten(0, 1), index)
            )
            for index, name in enumerate(self.cameras)
        ]
        rows = len(images[self.cameras[0]])
        joined = rearrange(tokens, "v (b t) d -> b t v d", b=rows)
        return TokenGroup(joined if self.projection is None else self.projection(joined))

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load LeRobot's weights, or those of a ResNet for every camera, strictly.

        Raises ConfigError that lists what does not fit.
        """
        batch_norms = any(name.endswith("running_mean") for name in weights.tensors)
        norm = "frozen_batch" if batch_norms else "group"
        if self.config.norm != norm:
            raise ConfigError(
                f"pretrained: '{weights.source}' has {'batch' if batch_norms else 'group'} norms, "
                f'and norm is "{self.config.norm}"; set norm = "{norm}"'
            )
        if theirs := encoder_tensors(weights.tensors):
            self._load_lerobot(LeRobotFiles(weights), theirs)
            return
        for resnet in self._resnets():
            fill(resnet.state_dict(), resnet_tensors(weights.tensors), weights.source)

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take what belongs to the cameras that both have, and the weights that all share."""
        adapted = dict(tensors)
        if self.config.per_camera and former.config.per_camera:
            adapted = self.state_dict()
            for index, name in enumerate(self.cameras):
                if name in former.cameras:
                    place = f"encoders.{former.cameras.index(name)}."
                    adapted |= {
                        f"encoders.{index}.{weight.removeprefix(place)}": x
                        for weight, x in tensors.items()
                        if weight.startswith(place)
                    }
        for kind in ("mean", "std"):
            own = getattr(self, kind)
            adapted[kind] = carry_cameras(own, self.cameras, tensors[kind], former.cameras)
        return adapted

    def _load_lerobot(self, files: LeRobotFiles, tensors: Mapping[str, Tensor]) -> None:
        """Load the encoder's tensors of a policy of LeRobot's, and its statistics of pixels."""
        config = self.config
        check_files(
            files,
            per_camera=config.per_camera,
            image_size=config.image_size,
            crop_size=config.crop_size,
        )
        places = places_of_cameras(files, self.cameras)
        own = {name: x for name, x in self.state_dict().items() if name not in ("mean", "std")}
        names = published_names(list(own), places if config.per_camera else None)
        fill({names[name]: x for name, x in own.items()}, tensors, files.weights.source)
        self.extra_parameters = ()
        mean, std = files.pixel_statistics(self.cameras) or (self.mean, self.std)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def _resnets(self) -> list[Any]:
        return [encoder.get_submodule("resnet") for encoder in self.encoders]

    def _scale(self, images: Tensor, camera: int) -> Tensor:
        """Resize, crop and scale images of one camera (n C Y X) uint8 -> (n C Y' X')."""
        size, crop = self.config.image_size, self.config.crop_size
        pixels = images.float() if size is None else resize_images(images, size)
        pixels = pixels if crop is None else cut_middle(pixels, crop)
        return ((pixels / 255 - self.mean[camera]) / self.std[camera]).to(self.mean.dtype)


class CameraEncoder(nn.Module):
    """Makes one token of an image.

    A keypoint is the mean position in a map, weighted by a softmax over the map (Levine et al.
    2016); the maps are a 1 x 1 convolution of the ResNet's last one, without a bias, which a
    softmax does not see.
    """

    def __init__(self, config: ResNetKeypointsConfig) -> None:
        super().__init__()
        self.resnet = build_resnet(config.model, config.norm)
        self.maps = nn.Conv2d(self.resnet.num_features, config.keypoints, kernel_size=1, bias=False)
        self.output = nn.Linear(2 * config.keypoints, config.width)

    def forward(self, images: Tensor) -> Tensor:
        """(n C Y X) -> (n width)."""
        places = expected_places(self.maps(self.resnet.forward_features(images)))
        row, _, column, _ = places.chunk(4, dim=1)
        # column and row of each keypoint in turn, as LeRobot's weights expect them
        return F.relu(self.output(torch.stack([column, row], dim=-1).flatten(1)))


def cut_middle(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut rows and columns out of the middle of images (n C Y X)."""
    (rows, columns), (height, width) = size, images.shape[-2:]
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return images[..., top : top + rows, left : left + columns]


def _check_crop(config: ResNetKeypointsConfig, cameras: Mapping[str, tuple[int, int, int]]) -> None:
    """Raise ConfigError if `crop_size` is larger than an image."""
    for name, (_, *recorded) in cameras.items():
        size = config.image_size or recorded
        if config.crop_size and any(a > b for a, b in zip(config.crop_size, size, strict=True)):
            raise ConfigError(
                f"vision_encoder.crop_size: {list(config.crop_size)} is larger than the images of "
                f"camera '{name}', {list(size)}; choose a smaller size"
            )
