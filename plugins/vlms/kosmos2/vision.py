"""Kosmos-2's vision encoder: CLIP ViT-L/14, then a resampler that makes 64 tokens per image."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import TokenGroup, VisionEncoder, import_library, resize_images
from core.weights import Pretrained
from plugins.vlms.kosmos2.names import SOURCE, VISION_NAMES, robovlms_names, vision_tensors

# mean and standard deviation of red, green and blue in CLIP's training, in [0, 1]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Kosmos2VisionConfig:
    """The sizes of the vision encoder; the defaults are Kosmos-2's."""

    width: Annotated[int, Gt(0)] = 2048
    """width of every output token (D), equal to the width of the language model."""
    heads: Annotated[int, Gt(0)] = 32
    """number of attention heads of the resampler; the width must be a multiple of this number."""
    latents: Annotated[int, Gt(0)] = 64
    """tokens per camera."""
    clip_width: Annotated[int, Gt(0)] = 1024
    """width of CLIP's tokens."""
    clip_depth: Annotated[int, Gt(0)] = 24
    """number of CLIP's blocks."""
    clip_heads: Annotated[int, Gt(0)] = 16
    """number of attention heads of CLIP; clip_width must be a multiple of this number."""
    image_size: Annotated[int, Gt(0)] = 224
    """rows and columns to which every camera is resized, pixels."""
    patch_size: Annotated[int, Gt(0)] = 14
    """rows and columns of a patch, pixels."""

    def __post_init__(self) -> None:
        for width, heads in (("width", "heads"), ("clip_width", "clip_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{heads} must divide {width}, got {getattr(self, heads)} and "
                    f"{getattr(self, width)}"
                )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
            )


class Kosmos2Vision(VisionEncoder):
    """CLIP (Radford et al. 2021), then the resampler.

    CLIP's last norm acts on all tokens, and every token is then scaled to a vector of length 1. A
    frame's tokens are its cameras' tokens in the order of data.cameras; in RoboVLMs, the static
    camera comes after the wrist camera. `pretrained` takes Kosmos-2's weights as Hugging Face
    publishes them, or a RoboVLMs .ckpt.
    """

    source = SOURCE

    def __init__(
        self, config: Kosmos2VisionConfig, *, cameras: Mapping[str, tuple[int, int, int]]
    ) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.cameras = list(cameras)
        self.clip = _build_clip(config)
        self.dense = nn.Linear(config.clip_width, config.width)
        self.resampler = Resampler(config)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """CLIP's blocks."""
        return list(self.clip.blocks)

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:  # noqa: ARG002
        """{camera: (B T C Y X) uint8} -> (B T V*latents width)."""
        batch, window = images[self.cameras[0]].shape[:2]
        cameras = [self._prepare(images[name].flatten(0, 1)) for name in self.cameras]
        inputs = torch.stack(cameras, dim=1).flatten(0, 1)  # (B*T*V C Y X)
        features: Tensor = self.clip.forward_features(inputs)  # (B*T*V N clip_width), normed
        tokens = self.resampler(self.dense(F.normalize(features, dim=-1)))
        pattern = "(b t v) n d -> b t (v n) d"
        return TokenGroup(rearrange(tokens, pattern, b=batch, t=window, v=len(self.cameras)))

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load CLIP's and the resampler's weights, strictly.

        CLIP's position embeddings are resized, by timm, if the images have another size.
        """
        tensors, name = dict(vision_tensors(weights)), str(VISION_NAMES.table["clip.pos_embed"])
        if name in tensors:
            tensors[name] = self._resized(tensors[name].unsqueeze(0))[0]
        VISION_NAMES.load(self, tensors, weights.source)

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """Resize CLIP's position embeddings to this image size; cameras share all weights."""
        name = "clip.pos_embed"
        return {**tensors, name: self._resized(tensors[name])}

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as Hugging Face does."""
        return VISION_NAMES.publish(self.state_dict())

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return robovlms_names(self.publish())

    def publish_files(self, folder: Path) -> None:
        """Write the settings of CLIP's image processor."""
        size = self.config.image_size
        settings = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"height": size, "width": size},
            "do_center_crop": False,
            "image_mean": MEAN,
            "image_std": STD,
        }
        text = json.dumps(settings, indent=2)
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")

    def describe(self) -> dict[str, Any]:
        """Return the part of Kosmos2Config for vision: vision_config and the number of latents."""
        config = self.config
        vision = {
            "hidden_size": config.clip_width,
            "intermediate_size": 4 * config.clip_width,
            "num_hidden_layers": config.clip_depth,
            "num_attention_heads": config.clip_heads,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        }
        return {"vision_config": vision, "latent_query_num": config.latents}

    def _resized(self, positions: Tensor) -> Tensor:
        """Position embeddings (1 1+N D) of any image size -> (1 1+M D) of this one."""
        if positions.shape == self.clip.pos_embed.shape:
            return positions
        resize = import_library("timm.layers").resample_abs_pos_embed
        resized: Tensor = resize(positions, self.clip.patch_embed.grid_size)
        return resized

    def _prepare(self, images: Tensor) -> Tensor:
        """(n C Y X) uint8 -> (n C size size), resized and normalised as in CLIP's training."""
        resized = resize_images(images, self.config.image_size, "bicubic")
        return ((resized / 255 - self.mean) / self.std).to(self.mean.dtype)


class Resampler(nn.Module):
    """Lets learned latents attend to features and latents, without residual connection or norm."""

    def __init__(self, config: Kosmos2VisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.latents = nn.Parameter(torch.randn(config.latents, config.width))
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, features: Tensor) -> Tensor:
        """(n N D) -> (n latents D)."""
        # The latents are the same for every image, so they are projected once.
        query = self.q_proj(self.latents).expand(len(features), -1, -1)
        key = self._with_latents(self.k_proj, features)
        value = self._with_latents(self.v_proj, features)
        q, k, v = (rearrange(x, "n l (h d) -> n h l d", h=self.heads) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(rearrange(mixed, "n h l d -> n l (h d)"))  # type: ignore[no-any-return]

    def _with_latents(self, project: nn.Module, features: Tensor) -> Tensor:
        """Project features (n N D) and latents to keys or values (n N+latents D)."""
        return torch.cat(
            [project(features), project(self.latents).expand(len(features), -1, -1)], dim=1
        )


def _build_clip(config: Kosmos2VisionConfig) -> Any:
    """Build CLIP from timm: quick GELU, a norm before the blocks, no classifier."""
    vision_transformer = import_library("timm.models.vision_transformer")
    return vision_transformer.VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=0,
        global_pool="token",
        embed_dim=config.clip_width,
        depth=config.clip_depth,
        num_heads=config.clip_heads,
        pre_norm=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        act_layer="quick_gelu",
    )
