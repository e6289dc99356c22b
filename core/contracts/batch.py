"""What flows between the parts: tokens and their masks, sequences, and a batch of samples.

Shapes are written in the letters of core/contracts/parts.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Self

from torch import Tensor, device

from core.errors import ConfigError

# What a part remembers while acting: tensors (B ...); any row can be reset alone.
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class TokenGroup:
    """Tokens and a mask of the real ones, passed between all parts (after Octo's TokenGroup).

    tokens: (... N D).
    mask: (... N) bool, True where real. None means no padding. A mask of ones means the same, but
        checking that it is all ones would make the CPU wait for the GPU, so prefer None.
    grid: (N 2) int64, row and column of an image's tokens; -1 for a token without a place.
    losses: {name: scalar}, what the part that made the tokens adds to the training loss.
    """

    tokens: Tensor
    mask: Tensor | None = None
    grid: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)


class TokenKind(IntEnum):
    """What a token of a sequence stands for."""

    TEXT = 0
    VISION = 1
    PROPRIO = 2
    ACTION = 3
    OTHER = 4


@dataclass(frozen=True)
class TokenSequence:
    """The backbone's input: packed sequences, with real tokens first and padding at the end.

    So a token's index is its position. core/contracts/attention.py says which token sees which.

    tokens: (S L D).
    mask: (S L) bool, True where real; None means no padding.
    frame: (S L) int64, the frame that a token belongs to; no token sees a later frame.
    kind: (S L) int64, a TokenKind.
    readout: (B T Q) int64, indices of the action tokens in the flattened (S L), ascending; every
        sequence has the same number.
    block: (S L) int64; no token sees a later block. None means causal: each token is a block.
    private: (S L) bool, True for tokens that only their own frame sees: a head adds such tokens.
    grid: (S L 2) int64, row and column of an image's token; -1 for all others.
    losses: {name: scalar}, what the layout adds to the training loss.
    """

    tokens: Tensor
    mask: Tensor | None
    frame: Tensor
    kind: Tensor
    readout: Tensor
    block: Tensor | None = None
    private: Tensor | None = None
    grid: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)

    def map_columns(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor (S L ...): the tokens and all labels."""
        changed: dict[str, Any] = {}
        for name in ("tokens", "mask", "frame", "kind", "block", "private", "grid"):
            column = getattr(self, name)
            if column is not None:
                changed[name] = change(column)
        return replace(self, **changed)

    @property
    def is_action(self) -> Tensor:
        """A field of the first edition; raises ConfigError that names what replaced it."""
        raise ConfigError(
            "a plugin reads TokenSequence.is_action, which is gone: sequence.kind says what a "
            "token is, and core.attention_mask(sequence) what it sees; update the plugin"
        )


@dataclass(frozen=True)
class Memory:
    """What a backbone computed from sequences, layer by layer, so that more tokens can follow.

    sequence: all tokens that were run.
    tokens: (S L D), hidden states after the last norm.
    keys, values: (S K L d) for each layer; the keys include rotary positions, if there are any.
    hidden_states: (S L D), the input of the first layer, then the output of each layer.
    carry: {name: (S ...)}, the state of a recurrent backbone; zeros at the beginning.
    losses: {name: scalar}, what the backbone adds to the training loss.
    """

    sequence: TokenSequence
    tokens: Tensor
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()
    hidden_states: tuple[Tensor, ...] = ()
    carry: State = field(default_factory=dict)
    losses: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """What a policy observes and, in training, the actions that it should predict.

    images: {camera: (B T C Y X) uint8}.
    instructions: B texts.
    text_ids: (B N) int64, the instructions as the text encoder tokenised them.
    text_mask: (B N) bool, True where real; None means no padding.
    proprio: (B T P) float32, normalised.
    actions: (B T H A) float32, normalised; binary dimensions in {0, 1}.
    action_mask: (B T H A) bool; False past an episode's end, and for dimensions that the sample's
        robot lacks.
    episodes: B names of the episodes that the samples come from.
    features: {feature: (B T *shape)}, as the store holds them.
    present: {camera or feature: (B) bool}, False where a sample lacks it. Every sample has the
        cameras and features that are not in this mapping.
    embodiment: (B) int64, index of the recipe's store that a sample comes from.
    """

    images: Mapping[str, Tensor]
    instructions: Sequence[str]
    text_ids: Tensor
    text_mask: Tensor | None
    proprio: Tensor | None
    actions: Tensor | None = None
    action_mask: Tensor | None = None
    episodes: Sequence[str] = ()
    features: Mapping[str, Tensor] = field(default_factory=dict)
    present: Mapping[str, Tensor] = field(default_factory=dict)
    embodiment: Tensor | None = None

    def to(self, where: device) -> Self:
        """Copy every tensor to a device, without waiting for the copies to finish."""
        moved: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                moved[entry.name] = value.to(where, non_blocking=True)
            elif isinstance(value, Mapping):
                moved[entry.name] = {
                    key: x.to(where, non_blocking=True) for key, x in value.items()
                }
        return replace(self, **moved)
