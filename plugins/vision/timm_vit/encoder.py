"""Any timm model as vision encoder: a Vision Transformer, or a network with feature maps."""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Annotated, Any, Literal, Self

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn

from core import (
    ConfigError,
    TokenGroup,
    VisionEncoder,
    did_you_mean,
    import_library,
    resize_images,
)
from core.weights import Pretrained, check_state_dict, filter_keys, strip_prefix
from plugins.vision.timm_vit.conditioning import FiLM, Summary

# keys that change the network, and timm's names for them
TIMM_ARGUMENTS = {
    "depth": "depth",
    "width": "embed_dim",
    "heads": "num_heads",
    "patch_size": "patch_size",
}


@dataclass(frozen=True)
class TimmConfig:
    """The name and size of a timm model, and the choice of its output tokens."""

    model: str = "vit_tiny_patch16_224"
    """name of a timm model, as `timm.list_models()` gives it."""
    image_size: Annotated[int, Gt(0)] = 224
    """rows and columns to which every camera is resized, pixels."""
    depth: Annotated[int, Gt(0)] | None = None
    """number of blocks, only for models whose depth can be set; default: the depth that timm gives
    the model.
    """
    width: Annotated[int, Gt(0)] | None = None
    """width of the tokens, only for models whose width can be set; default: timm's."""
    heads: Annotated[int, Gt(0)] | None = None
    """number of attention heads, only for models where it can be set; default: timm's."""
    patch_size: Annotated[int, Gt(0)] | None = None
    """side of a patch in pixels, only for models whose patches can be set; default: timm's."""
    film: bool = False
    """whether the instruction scales and shifts the input of every block (FiLM); only for Vision
    Transformers that train (train = true), because FiLM begins by changing nothing.
    """
    tokens: Literal["all", "patches", "pooled", "summary"] = "all"
    """"all": all tokens of the model; "patches": all tokens except class and register tokens;
    "pooled": one token per camera; "summary": for each camera, a grid of `grid` x `grid` tokens
    into which the patches are merged, and one token for all keypoints.
    """
    grid: Annotated[int, Gt(0)] = 2
    """number of rows, and of columns, of the grid of "summary"."""
    keypoints: Annotated[int, Gt(0)] = 32
    """number of keypoints per camera of "summary"."""

    def __post_init__(self) -> None:
        changed = [
            key for key in ("grid", "keypoints") if getattr(self, key) != getattr(TimmConfig, key)
        ]
        if changed and self.tokens != "summary":
            raise ValueError(
                f"{' and '.join(changed)}: no effect without tokens = 'summary'; drop the key, or "
                "set tokens"
            )


class TimmEncoder(VisionEncoder):
    """Runs all cameras and frames as one batch.

    A frame's tokens are its cameras' tokens, sorted by camera name. While training, models with
    batch normalisation use the statistics of the batch.

    `film` lets the instruction act on the image in every block, as in RT-1 and OpenVLA-OFT. With
    `film` and the keypoints of "summary", a small model learns from scratch which place in the
    image a word means (docs/results.md).

    `pretrained` takes a file or folder with all of a timm model's weights; `pretrained = true`
    downloads the weights that timm publishes.

    Raises ConfigError if timm has no such model, or cannot build it with these settings.
    """

    def __init__(
        self, config: TimmConfig, *, cameras: Mapping[str, tuple[int, int, int]], text_width: int
    ) -> None:
        super().__init__()
        self.config = config
        self.source = f"timm's {config.model}"
        self.size = config.image_size
        self.tokens = config.tokens
        self.cameras = sorted(cameras)
        self.model, self.dropped = _build_model(config)
        self.width = int(
            self.model.head_hidden_size if config.tokens == "pooled" else self.model.num_features
        )
        self.film = _build_film(config, self.model, text_width) if config.film else None
        self.summary = _build_summary(config, self.model) if config.tokens == "summary" else None
        mean, std = (
            torch.tensor(self.model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std")
        )
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        # A learned vector for each camera tells the cameras' tokens apart; a single camera needs no
        # vector.
        self.camera = (
            nn.Parameter(torch.randn(len(cameras), 1, self.width) * 0.02)
            if len(cameras) > 1
            else None
        )
        self.extra_parameters = tuple(
            name for name, _ in self.named_parameters() if not name.startswith("model.")
        )

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The repeated blocks: blocks of a transformer, or stages of a convolutional network."""
        for name in ("blocks", "stages", "layers"):
            blocks = getattr(self.model, name, None)
            if isinstance(blocks, nn.Sequential | nn.ModuleList):
                return list(blocks)
        return [
            child
            for name, child in self.model.named_children()
            if re.fullmatch(r"(layer|stage|stages_)\d", name)
        ]

    @property
    def separates_cameras(self) -> bool:  # type: ignore[override]
        """Whether each camera's tokens depend on that camera's image alone.

        False while a model with batch normalisation trains: its statistics then come from the
        images of all cameras.
        """
        return not any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.modules()
        )

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:
        """{camera: (B T C Y X) uint8} -> (B T V*N width)."""
        batch, window = images[self.cameras[0]].shape[:2]
        resized = [resize_images(images[name].flatten(0, 1), self.size) for name in self.cameras]
        pixels = (torch.stack(resized, dim=1) / 255 - self.mean) / self.std  # (B*T V C Y X)
        with self._instructed(text, window * len(self.cameras)):
            tokens = self._encode(pixels.flatten(0, 1).to(self.mean.dtype))
        tokens = rearrange(tokens, "(bt v) n d -> bt v n d", v=len(self.cameras))
        if self.camera is not None:
            tokens = tokens + self.camera
        return TokenGroup(rearrange(tokens, "(b t) v n d -> b t (v n) d", b=batch, t=window))

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the weights of the timm model, without its classifier.

        Raises ConfigError that lists what does not fit, or says why the download failed.
        """
        if weights.source == self.source:
            tensors = _download(self.config)
        else:
            tensors = _resize(self.model, self._without_classifier(weights.tensors))
        check_state_dict(self.model.state_dict(), tensors, weights.source)
        self.model.load_state_dict(dict(tensors))

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Resize the model's weights to this image size, and sort the cameras' vectors by name.

        A camera that is new keeps its random vector. If the former encoder had one camera, and so
        no vector, that camera's vector is zero.
        """
        prefix = "model."
        model = _resize(self.model, strip_prefix(tensors, prefix))
        adapted = {name: x for name, x in tensors.items() if not name.startswith(prefix)}
        adapted |= {prefix + name: x for name, x in model.items()}
        before = adapted.pop("camera", None)
        if self.camera is not None:
            vectors = self.camera.detach().clone()
            for index, name in enumerate(self.cameras):
                if name in former.cameras:
                    row = former.cameras.index(name)
                    vectors[index] = 0 if before is None else before[row]
            adapted["camera"] = vectors
        return adapted

    def _without_classifier(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        classifier = self.model.pretrained_cfg.get("classifier") or ()
        layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        return filter_keys(
            tensors, lambda name: name.rpartition(".")[0] not in layers and name not in self.dropped
        )

    @contextmanager
    def _instructed(self, text: TokenGroup, images: int) -> Iterator[None]:
        """Let the instructions (B M text_width) act on the model's blocks, within the context.

        images: number of consecutive images that share one instruction (T V).
        """
        if self.film is None:
            yield
            return
        hooks = []
        for block, (scale, shift) in zip(self.blocks, self.film(text), strict=True):
            factor = 1 + scale.repeat_interleave(images, dim=0)
            summand = shift.repeat_interleave(images, dim=0)
            hooks.append(block.register_forward_pre_hook(partial(_modulate, factor, summand)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _encode(self, pixels: Tensor) -> Tensor:
        """(n C size size) -> (n N D)."""
        features = self.model.forward_features(pixels)  # (n N D), (n D Y X) or (n Y X D)
        if self.tokens == "pooled":
            pooled: Tensor = self.model.forward_head(features, pre_logits=True)
            return rearrange(pooled, "n d -> n 1 d")
        if not isinstance(features, Tensor):
            raise ConfigError(
                f"vision_encoder.model: '{self.config.model}' gives a {type(features).__name__} "
                "instead of one tensor of tokens; set tokens = 'pooled', or choose another model"
            )
        if features.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return rearrange(
                features, "n y x d -> n (y x) d" if channels_last else "n d y x -> n (y x) d"
            )
        prefix = 0 if self.tokens == "all" else getattr(self.model, "num_prefix_tokens", 0)
        # Some models apply the last norm only after pooling; unpooled tokens get it here.
        norm = getattr(self.model, "fc_norm", None)
        tokens = features[:, prefix:] if norm is None else norm(features[:, prefix:])
        return tokens if self.summary is None else self.summary(tokens)


def _build_model(config: TimmConfig) -> tuple[Any, Set[str]]:
    """Build the timm model without its classifier.

    Returns the model, and the names of the weights that were removed with its pooling layer.

    Raises ConfigError if timm has no such model, or cannot build it.
    """
    timm = import_library("timm")
    if not timm.is_model(config.model):
        hint = did_you_mean(config.model, timm.list_models())
        raise ConfigError(
            f"vision_encoder.model: timm {timm.__version__} has no model '{config.model}'{hint}"
        )
    sizes = _image_size_settings(timm, config)
    for key, argument in TIMM_ARGUMENTS.items():
        if (value := getattr(config, key)) is not None:
            sizes[argument] = value
    try:
        model = timm.create_model(config.model, pretrained=False, num_classes=0, **sizes)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"vision_encoder: timm cannot build '{config.model}' with {sizes}: {error}; change "
            f"these settings (here called {', '.join(TIMM_ARGUMENTS)}), or choose another model"
        ) from error
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None) or ()
    patch = (patch,) if isinstance(patch, int) else tuple(patch)
    if any(config.image_size % side for side in patch):
        # timm would silently cut off the last rows and columns
        raise ConfigError(
            f"vision_encoder.image_size: {config.image_size} is no multiple of the patch size "
            f"{patch[0]}; choose one"
        )
    names = set(model.state_dict())
    if config.tokens != "pooled":
        _remove_pooling(model, config)
    return model, names - set(model.state_dict())


def _remove_pooling(model: Any, config: TimmConfig) -> None:
    """Remove a pooling layer, and freeze what is left of the head: no token passes through it.

    Raises ConfigError if timm cannot give the model's tokens without pooling.
    """
    try:
        model.reset_classifier(0, "")
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(
            f"vision_encoder.tokens: '{config.model}' always pools its tokens ({error}); set "
            "tokens = 'pooled', or choose another model"
        ) from error
    if isinstance(head := getattr(model, "head", None), nn.Module):
        head.requires_grad_(False)


def _build_film(config: TimmConfig, model: Any, text_width: int) -> FiLM:
    """Build FiLM for the model's blocks; raises ConfigError if it cannot act on them."""
    if not _is_vision_transformer(model):
        raise ConfigError(
            f"vision_encoder.film: the blocks of '{config.model}' do not all pass on tokens of one "
            "width, as a Vision Transformer's do; set film = false, or choose another model"
        )
    if not text_width:
        raise ConfigError(
            "vision_encoder.film: the instruction scales and shifts the image's features, and this "
            "text encoder gives none; set film = false, or choose another text encoder"
        )
    return FiLM(text_width, model.embed_dim, len(model.blocks))


def _build_summary(config: TimmConfig, model: Any) -> Summary:
    """Build the tokens of "summary"; raises ConfigError if the patches do not fit the grid."""
    rows, columns = getattr(getattr(model, "patch_embed", None), "grid_size", (0, 0))
    if not _is_vision_transformer(model) or not rows or rows != columns:
        raise ConfigError(
            f"vision_encoder.tokens: 'summary' needs a square map of patches, and '{config.model}' "
            "has none; choose 'all', 'patches' or 'pooled'"
        )
    if rows % config.grid:
        raise ConfigError(
            f"vision_encoder.grid: {rows} x {rows} patches cannot be merged to {config.grid} x "
            f"{config.grid} tokens; choose a divisor of {rows}"
        )
    return Summary(model.num_features, rows, config.grid, config.keypoints)


def _is_vision_transformer(model: Any) -> bool:
    """Return whether all blocks pass on tokens (n N D) of one width."""
    return isinstance(getattr(model, "embed_dim", None), int) and hasattr(model, "blocks")


def _modulate(
    factor: Tensor,
    summand: Tensor,
    block: nn.Module,  # noqa: ARG001 (a hook gets the block, too)
    inputs: tuple[Any, ...],
) -> tuple[Any, ...]:
    """Scale and shift the tokens (n N D) that a block is about to receive.

    factor, summand: (n 1 D).

    The function is a forward pre-hook of PyTorch.
    """
    tokens, *others = inputs
    return tokens * factor + summand, *others


def _image_size_settings(timm: ModuleType, config: TimmConfig) -> dict[str, int]:
    """Return the argument that sets a model's image size; empty for models that take any size."""
    fixed = timm.get_pretrained_cfg(config.model).fixed_input_size
    return {"img_size": config.image_size} if fixed else {}


def _resize(model: Any, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a timm model's weights, of any image size, as they fit a model of another image size.

    Timm's own filter of checkpoints resizes position embeddings and kernels of patches. Weights
    that fit already are returned as they are.
    """
    own = model.state_dict()
    if all(name not in own or own[name].shape == x.shape for name, x in tensors.items()):
        return tensors
    resize = getattr(import_library(type(model).__module__), "checkpoint_filter_fn", None)
    return tensors if resize is None else dict(resize(dict(tensors), model))


def _download(config: TimmConfig) -> Mapping[str, Tensor]:
    """Download the weights that timm publishes; timm adapts them to the recipe's image size."""
    timm = import_library("timm")
    if not timm.get_pretrained_cfg(config.model).has_weights:
        raise ConfigError(
            f"pretrained: timm publishes no weights for '{config.model}'; name a file"
        )
    if changed := [key for key in TIMM_ARGUMENTS if getattr(config, key) is not None]:
        raise ConfigError(
            f"pretrained: {', '.join(changed)} would change the network, so timm's published "
            "weights would not fit; drop them, or drop pretrained"
        )
    sizes = _image_size_settings(timm, config)
    try:
        model = timm.create_model(config.model, pretrained=True, num_classes=0, **sizes)
    except OSError as error:
        raise ConfigError(
            f"pretrained: no download of '{config.model}': {error}; name a file"
        ) from error
    if config.tokens != "pooled":
        model.reset_classifier(0, "")
    return model.state_dict()  # type: ignore[no-any-return]
