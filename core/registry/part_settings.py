"""What the section of a part may say beside the keys of its component, with limits and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

Positive = Annotated[int, Gt(0)]
Amount = Annotated[float, Ge(0)]
Rate = Annotated[float, Ge(0), Le(10)]
Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class PartSettings:
    """What every part's section may say beside its own keys."""

    train: bool | Literal["lora"] = True
    """false freezes the part; "lora" freezes it and trains low-rank adapters beside its linear
    layers.
    """
    gradient_checkpointing: bool = False
    """recompute the activations of the part's blocks in the backward pass: less memory, about a
    third more time.
    """
    learning_rate: Rate | None = None
    """overrides [train]."""
    weight_decay: Amount | None = None
    """overrides [train]."""
    pretrained: bool | str = False
    """where the weights come from before training: a folder or file relative to the recipe's, or a
    name on the Hugging Face hub; true for those that the part itself names.
    """
    quantize: Literal["nf4"] | None = None
    """"nf4" keeps the linear layers that `pretrained` fills and nothing trains in four bits
    (Dettmers et al. 2023).
    """
    lora_rank: Positive | None = None
    """rank of each adapter (Hu et al. 2021); 16 unless said."""
    lora_alpha: Annotated[float, Gt(0)] | None = None
    """the adapters' output is scaled by alpha / rank; 2 x rank unless said."""
    lora_dropout: Share | None = None
    """on the adapters' input while training, a probability."""
    lora_targets: tuple[str, ...] | None = None
    """last words of the names of the linear layers that get one, "q_proj" for example; all unless
    said.
    """

    def __post_init__(self) -> None:
        if self.train is False and (self.learning_rate, self.weight_decay) != (None, None):
            raise ValueError(
                "learning_rate and weight_decay have no effect on a part with train = false; drop them"
            )
        if self.quantize is not None and not self.base_is_published:
            raise ValueError(
                'quantize needs pretrained weights that stay: set pretrained, and train = false or "lora"'
            )
        said = [
            name
            for name in vars(self)
            if name.startswith("lora_") and getattr(self, name) is not None
        ]
        if said and self.train != "lora":
            raise ValueError(
                f'{", ".join(said)}: no effect without train = "lora"; drop, or set that'
            )

    @property
    def base_is_published(self) -> bool:
        """Whether the part's own weights stay as `pretrained` gave them, so that no checkpoint need
        hold them.
        """
        return bool(self.pretrained) and self.train is not True


@dataclass(frozen=True)
class EncoderSettings:
    """What the sections of the vision and the text encoder may say beside: how tokens reach the
    backbone's width.
    """

    projection: Literal["linear", "mlp", "mlp3"] = "linear"
    """"linear", where the widths differ; "mlp", two layers (LLaVA), or "mlp3", three (OpenVLA), in
    any case.
    """
    projection_scale: Literal["none", "sqrt_width"] = "none"
    """"sqrt_width" multiplies the tokens by the square root of the backbone's width (Gemma,
    SmolVLA).
    """


@dataclass(frozen=True)
class HeadSettings:
    """What a policy head's section may say beside."""

    insulate: bool = False
    """stop its gradients before the backbone, which other losses then train (knowledge insulation,
    pi0.5).
    """


@dataclass(frozen=True)
class AuxiliarySettings:
    """What a table [[auxiliary]] may say beside the keys of its policy head, which only training
    uses.
    """

    weight: Annotated[float, Gt(0)] = 1.0
    """factor of its loss in the sum."""
    label: str | None = None
    """what losses and weights call it; the head's name unless said."""
    insulate: bool = False
    """stop its gradients before the backbone."""


OF_KIND: Mapping[str, type] = {
    "vision_encoder": EncoderSettings,
    "text_encoder": EncoderSettings,
    "policy_head": HeadSettings,
    "auxiliary": AuxiliarySettings,
}
