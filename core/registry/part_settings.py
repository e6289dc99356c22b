"""The keys of a part's section besides its component's own keys, with limits and defaults."""

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
    """The keys that every part's section can hold besides the keys of its component."""

    train: bool | Literal["lora"] = True
    """false freezes the part; "lora" freezes it and trains low-rank adapters beside its linear
    layers.
    """
    gradient_checkpointing: bool = False
    """recompute the activations of the part's blocks in the backward pass: less memory, about a
    third more time.
    """
    learning_rate: Rate | None = None
    """the part's own learning rate; default: the learning rate in [train]."""
    weight_decay: Amount | None = None
    """the part's own weight decay; default: the weight decay in [train]."""
    pretrained: bool | str = False
    """source of the weights before training: a file or folder, relative to the recipe's folder, or
    a name on the Hugging Face hub; true for the source that the part itself names.
    """
    quantize: Literal["nf4"] | None = None
    """"nf4" stores the frozen, pretrained linear layers in four bits (Dettmers et al. 2023)."""
    lora_rank: Positive | None = None
    """rank of each adapter (Hu et al. 2021); default: 16."""
    lora_alpha: Annotated[float, Gt(0)] | None = None
    """the adapters' output is scaled by alpha / rank; default: 2 x rank."""
    lora_dropout: Share | None = None
    """dropout probability on the adapters' input while training; default: 0."""
    lora_targets: tuple[str, ...] | None = None
    """which linear layers get an adapter: the last components of the layers' names, "q_proj" for
    example; default: all.
    """

    def __post_init__(self) -> None:
        if self.train is False and (self.learning_rate, self.weight_decay) != (None, None):
            raise ValueError(
                "learning_rate and weight_decay have no effect on a part with train = false; "
                "drop them"
            )
        if self.quantize is not None and not self.keeps_pretrained_weights:
            raise ValueError(
                "quantize needs pretrained weights that do not train: set pretrained, "
                'and train = false or "lora"'
            )
        lora_keys = [
            name
            for name, value in vars(self).items()
            if name.startswith("lora_") and value is not None
        ]
        if lora_keys and self.train != "lora":
            raise ValueError(
                f'{", ".join(lora_keys)}: no effect without train = "lora"; drop them or set it'
            )

    @property
    def keeps_pretrained_weights(self) -> bool:
        """Whether training leaves the part's own weights as `pretrained` gave them.

        Checkpoints leave out such weights, since they can be read from their source again.
        """
        return bool(self.pretrained) and self.train is not True


@dataclass(frozen=True)
class EncoderSettings:
    """Further keys of the vision and the text encoder: how tokens reach the backbone's width."""

    projection: Literal["linear", "mlp", "mlp3"] = "linear"
    """"linear" is one layer, or none if the widths are equal; "mlp" is two layers (LLaVA) and
    "mlp3" three (OpenVLA), whatever the widths.
    """
    projection_scale: Literal["none", "sqrt_width"] = "none"
    """"sqrt_width" multiplies the tokens by the square root of the backbone's width (Gemma,
    SmolVLA).
    """


@dataclass(frozen=True)
class HeadSettings:
    """Further keys of the policy head."""

    insulate: bool = False
    """stop the head's gradient before the backbone, so that only other losses train the backbone
    (knowledge insulation, pi0.5).
    """


@dataclass(frozen=True)
class AuxiliarySettings:
    """Further keys of a table [[auxiliary]]: a policy head that only training uses."""

    weight: Annotated[float, Gt(0)] = 1.0
    """factor of the head's loss in the sum of the losses."""
    label: str | None = None
    """the head's name in losses and weights; default: the name of the head."""
    insulate: bool = False
    """stop the head's gradient before the backbone."""


# the settings that only one kind of part has; "auxiliary" is a policy head in [[auxiliary]]
SETTINGS_OF_KIND: Mapping[str, type] = {
    "vision_encoder": EncoderSettings,
    "text_encoder": EncoderSettings,
    "policy_head": HeadSettings,
    "auxiliary": AuxiliarySettings,
}
