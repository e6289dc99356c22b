"""What flows between the parts: tokens and their masks, sequences, and a batch of training samples.

Shapes are written in the letters of core/contracts/parts.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Self

from torch import Tensor, device

from core.errors import ConfigError

# what a part remembers while acting: tensors (B ...), whose rows are reset one by one
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class TokenGroup:
    """Tokens and which of them are real; carried across every boundary (after Octo's TokenGroup).

    losses: scalars that the part which made the tokens adds to training, by name.
    """

    tokens: Tensor  # (... N D)
    mask: Tensor | None = (
        None  # (... N) bool, True where real; None: all are, known without asking the device
    )
    grid: Tensor | None = (
        None  # (N 2) int64: row and column of an image's token; -1 for one that has no place
    )
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
    """The backbone's input: packed sequences, real tokens first, so that a token's position is its
    index.

    Token i sees token j if j is real, frame(j) <= frame(i) and block(j) <= block(i), and if j is
    private only where frame(j) = frame(i). `core.contracts.attention` makes masks and positions of
    that.
    """

    tokens: Tensor  # (S L D)
    mask: Tensor | None  # (S L) bool; None: all real
    frame: Tensor  # (S L) int64: the frame a token belongs to; no token may attend to a later frame
    kind: Tensor  # (S L) int64: a TokenKind
    # (B T Q) int64: indices of action tokens in the flattened (S L), ascending, as many in each of
    # S
    readout: Tensor
    block: Tensor | None = None  # (S L) int64; None: causal, every token is a block of its own
    private: Tensor | None = (
        None  # (S L) bool: tokens that their own frame alone sees, as those that a head adds
    )
    grid: Tensor | None = (
        None  # (S L 2) int64: row and column of an image's token, -1 for all others
    )
    losses: Mapping[str, Tensor] = field(default_factory=dict)  # as TokenGroup's

    def map_columns(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Change every tensor (S L ...) alike, tokens and labels."""
        names = ("tokens", "mask", "frame", "kind", "block", "private", "grid")
        changed: dict[str, Any] = {
            name: change(x) for name in names if (x := getattr(self, name)) is not None
        }
        return replace(self, **changed)

    @property
    def is_action(self) -> Tensor:
        """What the first edition of the contract had; raises ConfigError that says what stands in
        its place.
        """
        raise ConfigError(
            "a plugin reads TokenSequence.is_action, which is gone: sequence.kind tells what a token is, and "
            "core.attention_mask(sequence) what it sees; update the plugin"
        )


@dataclass(frozen=True)
class Memory:
    """What a backbone made of sequences, layer by layer; further tokens can be run on top of it."""

    sequence: TokenSequence  # all tokens that were read
    tokens: Tensor  # (S L D) hidden states after the last norm
    keys: tuple[
        Tensor, ...
    ] = ()  # of each layer (S K L d), with rotary positions applied if the backbone has them
    values: tuple[Tensor, ...] = ()  # of each layer (S K L d)
    hidden_states: tuple[
        Tensor, ...
    ] = ()  # (S L D): what enters the first layer, then what leaves each
    carry: State = field(
        default_factory=dict
    )  # (S ...): what a recurrent backbone carries on; zeros at the beginning
    losses: Mapping[str, Tensor] = field(default_factory=dict)  # as TokenGroup's


@dataclass(frozen=True)
class Batch:
    """What a policy sees and, in training, what it should have done. Every tensor is batch first."""

    images: Mapping[str, Tensor]  # {camera: (B T C Y X) uint8}
    instructions: Sequence[str]  # B
    text_ids: Tensor  # (B N) int64: the instructions as the text encoder tokenised them
    text_mask: Tensor | None  # (B N) bool; None: no padding
    proprio: Tensor | None  # (B T P) float32, normalised
    actions: Tensor | None = None  # (B T H A) float32, normalised; binary dimensions in {0, 1}
    action_mask: Tensor | None = (
        None  # (B T H A) bool: False past an episode's end, and for what its robot lacks
    )
    episodes: Sequence[str] = ()  # B: where each sample comes from
    # {feature: (B T *shape)}, in the numbers of the store
    features: Mapping[str, Tensor] = field(default_factory=dict)
    # {camera or feature that some samples lack: (B) bool}; those that are not here, every sample
    # has
    present: Mapping[str, Tensor] = field(default_factory=dict)
    embodiment: Tensor | None = None  # (B) int64: which of the recipe's stores a sample comes from

    def to(self, where: device) -> Self:
        """Copy every tensor to a device, without waiting for it."""
        moved: dict[str, Any] = {}
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                moved[name] = value.to(where, non_blocking=True)
            elif isinstance(value, Mapping):
                moved[name] = {key: x.to(where, non_blocking=True) for key, x in value.items()}
        return replace(self, **moved)
