"""The keys that a part's section can have in addition to the keys of its component."""

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
    """The keys that the section of any part can have in addition to the keys of its component."""

    train: bool | Literal["lora"] = True
    """false freezes the part; "lora" freezes it and trains low-rank adapters that are added to its
    linear layers.
    """
    freeze: tuple[str, ...] = ()
    """which weights of a part with train = true are frozen: patterns of their dotted names, of the
    ends of these names, or of the modules that hold them; "blocks.[0-3]" or "embed*" for example.
    """
    gradient_checkpointing: bool = False
    """recompute the activations of the part's blocks in the backward pass; training then takes less
    memory, but about a third more time.
    """
    learning_rate: Rate | None = None
    """learning rate of this part; default: the learning rate in [train]."""
    layer_decay: Annotated[float, Gt(0), Lt(1)] | None = None
    """factor by which the learning rate falls from each block of the part to the block before it,
    for pretrained parts, 0.75 for example (Bao et al. 2022); default: all blocks have the same.
    """
    weight_decay: Amount | None = None
    """weight decay of this part; default: the weight decay in [train]."""
    pretrained: bool | str | None = None
    """source of the weights with which training begins: a file or folder, relative to the recipe's
    folder, or a name on the Hugging Face hub. The folder of a run, or of one of its checkpoints:
    the weights of this part in the run's newest, or in that checkpoint. true: the source that the
    component names. false: the weights are random. Unset: random, too, but refused if these weights
    would never train, or if other parts of the same model are pretrained. A run in [start] counts
    more than this key.
    """
    quantize: Literal["nf4"] | None = None
    """"nf4" stores the weights of the part's frozen, pretrained linear layers in four bits each
    (Dettmers et al. 2023).
    """
    lora_rank: Positive | None = None
    """rank of each adapter (Hu et al. 2021); default: 16."""
    lora_alpha: Annotated[float, Gt(0)] | None = None
    """the adapters' output is scaled by alpha / rank; default: 2 x rank."""
    lora_dropout: Share | None = None
    """probability of dropout on the adapters' input in training; default: 0."""
    lora_targets: tuple[str, ...] | None = None
    """which linear layers get an adapter: the last words of the layers' dotted names, "q_proj" for
    example; default: all linear layers.
    """
    lora_pretrained: str | None = None
    """folder of adapters in the layout of peft, relative to the recipe's folder, with which the
    part's adapters begin; it may hold those of other parts, too.
    """
    lora_train: tuple[str, ...] | None = None
    """which weights train themselves, beside the adapters; patterns as those of `freeze`, "norm*"
    for example.
    """

    def __post_init__(self) -> None:
        if self.freeze and self.train is not True:
            instead = "lora_targets and lora_train say" if self.train == "lora" else "that says"
            raise ValueError(
                f"freeze is for parts with train = true; {instead} what trains here; drop it"
            )
        rates = (self.learning_rate, self.layer_decay, self.weight_decay)
        if self.train is False and any(rate is not None for rate in rates):
            raise ValueError(
                "learning_rate, layer_decay and weight_decay have no effect on a part with "
                "train = false; drop them"
            )
        if self.quantize is not None and not self.keeps_pretrained_weights:
            raise ValueError(
                "quantize needs pretrained weights that do not train: set pretrained, "
                'and train = false or "lora", or freeze'
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
        """Whether weights from `pretrained` stay the same throughout training.

        Checkpoints leave out such weights, since these can be loaded from `pretrained` again.
        """
        return bool(self.pretrained) and self.has_frozen_weights

    @property
    def has_frozen_weights(self) -> bool:
        """Whether some weights of the part do not train."""
        return self.train is not True or bool(self.freeze)


@dataclass(frozen=True)
class EncoderSettings:
    """Further keys of encoders: how their tokens are projected to the backbone's width."""

    projection: Literal["linear", "mlp", "mlp3"] = "linear"
    """layers that project the tokens to the backbone's width: "linear" is one layer, or no layer if
    the encoder has the same width; "mlp" is two layers (LLaVA), and "mlp3" three layers (OpenVLA).
    """
    projection_scale: Literal["none", "sqrt_width"] = "none"
    """"sqrt_width" multiplies the tokens by the square root of the backbone's width (Gemma,
    SmolVLA).
    """


@dataclass(frozen=True)
class HeadSettings:
    """Further keys of the policy head."""

    insulate: bool = False
    """keep the gradient of this head's loss out of the backbone, so that only other losses train
    the backbone (knowledge insulation, pi0.5).
    """


@dataclass(frozen=True)
class AuxiliarySettings:
    """Further keys of a table [[auxiliary]], which adds a policy head that only training uses."""

    weight: Annotated[float, Gt(0)] = 1.0
    """factor by which the head's loss is multiplied in the sum of the losses."""
    label: str | None = None
    """the head's name in the names of its losses and weights; default: its component's name."""
    insulate: bool = False
    """keep the gradient of this head's loss out of the backbone."""


# {kind of part: class of its further settings}; "auxiliary": a head in [[auxiliary]]
SETTINGS_OF_KIND: Mapping[str, type] = {
    "vision_encoder": EncoderSettings,
    "text_encoder": EncoderSettings,
    "policy_head": HeadSettings,
    "auxiliary": AuxiliarySettings,
}
