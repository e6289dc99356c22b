"""Any timm model as vision encoder: Vision Transformers, and networks that give a feature map (ResNet, Swin)."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import RecipeError, Register, TokenGroup, VisionEncoder, did_you_mean, hookimpl


@dataclass(frozen=True)
class TimmConfig:
    """A timm model and what is taken from it.

    model: name of a timm model, as `timm.list_models()` gives it.
    image_size: rows and columns to which every camera is resized, pixels.
    pretrained: true for timm's published weights (downloaded), or a .safetensors or .pth file with all the weights.
    depth: number of blocks instead of the model's own, for models that take a depth; none keeps the model's.
    tokens: "all" that the model gives, "patches" without class and register tokens, or one "pooled" token per camera.
    gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
    """

    model: str = "vit_tiny_patch16_224"
    image_size: Annotated[int, Gt(0)] = 224
    pretrained: bool | Path = False
    depth: Annotated[int, Gt(0)] | None = None
    tokens: Literal["all", "patches", "pooled"] = "all"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.pretrained is True and self.depth is not None:
            raise ValueError("depth changes the network, so timm's published weights do not fit; drop one of the two")


class TimmEncoder(VisionEncoder):
    """Runs all cameras and frames as one batch; a frame's tokens are its cameras' tokens, sorted by camera name.

    Models with batch normalisation use the statistics of the batch while they train, as everywhere.
    """

    def __init__(
        self,
        config: TimmConfig,
        *,
        cameras: Mapping[str, tuple[int, int, int]],
        text_width: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.size = config.image_size
        self.tokens = config.tokens
        self.cameras = sorted(cameras)
        self.model = _create(config)
        self.width = int(self.model.head_hidden_size if config.tokens == "pooled" else self.model.num_features)
        mean, std = (torch.tensor(self.model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        # With one camera there is nothing to tell apart.
        self.camera = nn.Parameter(torch.randn(len(cameras), 1, self.width) * 0.02) if len(cameras) > 1 else None

    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:  # noqa: ARG002
        """{camera: (B T C Y X) uint8} -> (B T V*N width)."""
        batch, window = images[self.cameras[0]].shape[:2]
        resized = [self._resize(images[name].flatten(0, 1)) for name in self.cameras]
        pixels = (torch.stack(resized, dim=1) / 255 - self.mean) / self.std  # (B*T V C Y X)
        tokens = self._encode(pixels.flatten(0, 1).to(self.mean.dtype))
        tokens = rearrange(tokens, "(bt v) n d -> bt v n d", v=len(self.cameras))
        if self.camera is not None:
            tokens = tokens + self.camera
        return TokenGroup(rearrange(tokens, "(b t) v n d -> b t (v n) d", b=batch, t=window))

    def _resize(self, images: Tensor) -> Tensor:
        """(n C Y X) uint8 -> (n C size size) float32 in [0, 255]."""
        images = images.float()
        if images.shape[-2:] == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)

    def _encode(self, pixels: Tensor) -> Tensor:
        """(n C size size) -> (n N D)."""
        features: Tensor = self.model.forward_features(pixels)  # (n N D), (n D Y X) or (n Y X D)
        if self.tokens == "pooled":
            pooled: Tensor = self.model.forward_head(features, pre_logits=True)
            return rearrange(pooled, "n d -> n 1 d")
        if features.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return rearrange(features, "n y x d -> n (y x) d" if channels_last else "n d y x -> n (y x) d")
        prefix = getattr(self.model, "num_prefix_tokens", 0) if self.tokens == "patches" else 0
        # Some models norm only what they pooled; without that norm their tokens would have none.
        norm = getattr(self.model, "fc_norm", None)
        return features[:, prefix:] if norm is None else norm(features[:, prefix:])


def _create(config: TimmConfig) -> Any:
    """Build the timm model with its weights and without its classifier."""
    timm = import_timm()
    settings = _settings(timm, config)
    sizes = {"img_size": config.image_size} if settings.fixed_input_size else {}  # others take any size
    sizes |= {} if config.depth is None else {"depth": config.depth}
    try:
        model = timm.create_model(config.model, pretrained=config.pretrained is True, num_classes=0, **sizes)
    except (TypeError, ValueError, AssertionError) as error:
        raise RecipeError(f"vision_encoder: timm cannot build '{config.model}' with {sizes}: {error}") from error
    except OSError as error:
        raise RecipeError(
            f"vision_encoder.pretrained: no download of '{config.model}': {error}; name a file"
        ) from error
    _check_patches(model, config.image_size)
    if isinstance(config.pretrained, Path):
        _load(model, config.pretrained)
    if config.tokens != "pooled":
        model.reset_classifier(0, "")  # drops an attention pool that nothing would train
    model.set_grad_checkpointing(config.gradient_checkpointing)
    return model


def _settings(timm: ModuleType, config: TimmConfig) -> Any:
    """Return what timm says of the model; raises RecipeError where it has no such model, or no weights for it."""
    if not timm.is_model(config.model):
        hint = did_you_mean(config.model, timm.list_models())
        raise RecipeError(f"vision_encoder.model: timm {timm.__version__} has no model '{config.model}'{hint}")
    settings = timm.get_pretrained_cfg(config.model)
    if config.pretrained is True and not settings.has_weights:
        raise RecipeError(f"vision_encoder.pretrained: timm publishes no weights for '{config.model}'; name a file")
    return settings


def _check_patches(model: Any, size: int) -> None:
    """Refuse a size of which timm would silently cut off the last rows and columns."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch and any(size % side for side in patch):
        raise RecipeError(f"vision_encoder.image_size: {size} is no multiple of the patch size {patch[0]}; choose one")


def _load(model: Any, path: Path) -> None:
    """Load every weight from a local file; raises RecipeError that lists what does not fit."""
    weights = _read_weights(path)
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)  # the encoder has no classifier
    weights = {name: x for name, x in weights.items() if name.rpartition(".")[0] not in heads}
    expected = model.state_dict()
    wrong = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "misshapen": [
            f"{name} {tuple(x.shape)} instead of {tuple(expected[name].shape)}"
            for name, x in weights.items()
            if name in expected and x.shape != expected[name].shape
        ],
    }
    if any(wrong.values()):
        what = "; ".join(f"{kind}: {_first_few(names)}" for kind, names in wrong.items() if names)
        raise RecipeError(f"vision_encoder.pretrained: '{path}' does not fit the model; {what}")
    model.load_state_dict(weights)


def _first_few(names: Sequence[str], count: int = 4) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without ever running code that the file carries."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecipeError(f"vision_encoder.pretrained: cannot read '{path}': {reason}") from error
    if not isinstance(weights, dict) or not all(isinstance(x, Tensor) for x in weights.values()):
        raise RecipeError(f"vision_encoder.pretrained: '{path}' is no state dict (names -> tensors); save one")
    return weights


_declared: list[torch.library.Library] = []  # the declarations below last as long as these objects


def import_timm() -> ModuleType:
    """Import timm, also beside a torchvision that was built for another torch.

    PyPI's torchvision beside a CPU-only torch cannot load its compiled operators, and its import then stops at the
    first of them ("operator torchvision::nms does not exist"), although timm needs none. Declaring the two operators
    that it names, without an implementation, lets the import through.
    """
    before = set(sys.modules)
    try:
        return import_module("timm")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("timm", "torchvision"):  # imported by half
            del sys.modules[name]
    operators = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        operators.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(operators)
    return import_module("timm")


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "timm_vit"."""
    register("timm_vit", TimmConfig, TimmEncoder)
