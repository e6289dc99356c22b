"""What flows between the parts: tokens and their masks, sequences, and a batch of samples.

Shapes are written in the letters of core/contracts/parts.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Self

from torch import Tensor, device

from core.errors import ConfigError

# What a part remembers while acting: tensors (B ...). Each of the B rows can be reset separately.
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class TokenGroup:
    """Tokens, and a mask that tells real tokens from padding (after Octo's TokenGroup).

    tokens: (... N D).
    mask: (... N) bool, True where real. None means no padding. A mask that is True everywhere
        means the same, but is treated as if there were padding, which is slower.
    grid: (N 2) int64, each token's row and column in its image; -1 for a token without a place in
        an image.
    losses: {name: scalar}, terms of the training loss from the part that made the tokens.
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

    So if no token is private, the index of a real token is also its position.
    core/contracts/attention.py says which token sees which other tokens.

    tokens: (S L D).
    mask: (S L) bool, True where real; None means no padding.
    frame: (S L) int64, the frame that a token belongs to; no token sees a later frame.
    kind: (S L) int64, a TokenKind.
    readout: (B T Q) int64, ascending indices of the action tokens in the flattened (S L). Every
        sequence has the same number of action tokens.
    block: (S L) int64, the block that a token belongs to; no token sees a later block. None means
        that each token is a separate block, so that the sequence is causal.
    private: (S L) bool, True for tokens that only tokens of the same frame see. Heads add such
        tokens.
    grid: (S L 2) int64, each token's row and column in its image; -1 for a token without a place in
        an image.
    position_embedding: (S L D), what a layer adds to each token to make its query and its key, but
        not its value, as in DETR. A backbone with positions of its own ignores it.
    losses: {name: scalar}, terms that the layout adds to the training loss.
    """

    tokens: Tensor
    mask: Tensor | None
    frame: Tensor
    kind: Tensor
    readout: Tensor
    block: Tensor | None = None
    private: Tensor | None = None
    grid: Tensor | None = None
    position_embedding: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)

    def map_columns(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor (S L ...): the tokens and all labels."""
        changed: dict[str, Any] = {}
        names = ("tokens", "mask", "frame", "kind", "block", "private", "grid")
        for name in (*names, "position_embedding"):
            column = getattr(self, name)
            if column is not None:
                changed[name] = change(column)
        return replace(self, **changed)

    @property
    def is_action(self) -> Tensor:
        """A field of Joinery's first edition: raises a ConfigError that names the replacement."""
        raise ConfigError(
            "a plugin reads TokenSequence.is_action, which is gone: sequence.kind says what a "
            "token is, and core.attention_mask(sequence) what it sees; update the plugin"
        )


@dataclass(frozen=True)
class Memory:
    """What a backbone computed, layer by layer, from the tokens that it has run.

    Heads read the memory. As the `past` of `Backbone.remember`, it lets the backbone run further
    tokens without running the earlier tokens again.

    sequence: all tokens that the backbone has run.
    tokens: (S L D), hidden states after the last norm.
    keys, values: (S K L d) for each layer; the keys include rotary positions, if there are any.
    hidden_states: tensors (S L D): the input of the first layer, then the output of each layer.
    carry: {name: (S ...)}, the state of a recurrent backbone, which is zero at the beginning.
    losses: {name: scalar}, terms that the backbone adds to the training loss.
    """

    sequence: TokenSequence
    tokens: Tensor
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()
    hidden_states: tuple[Tensor, ...] = ()
    carry: State = field(default_factory=dict)
    losses: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PastActions:
    """The action that was executed just before each frame.

    actions: (B T A) float32, normalised; binary dimensions in {0, 1}. Dimensions that the sample's
        robot lacks are 0, and so are all where no action is known.
    known: (B T) bool, whether there is such an action: False at the first frame of an episode, and
        past an episode's end.
    """

    actions: Tensor
    known: Tensor


@dataclass(frozen=True)
class Batch:
    """What a policy observes and, in training, the actions that it should predict.

    images: {camera: (B T C Y X) uint8}.
    instructions: B texts.
    text_ids: (B N) int64, the instructions as the text encoder tokenised them.
    text_mask: (B N) bool, True where real; None means no padding.
    proprio: (B T P) float32, normalised.
    actions: (B T H A) float32, normalised; binary dimensions in {0, 1}.
    action_mask: (B T H A) bool; False for actions past the episode's end, and for dimensions that
        the sample's robot lacks.
    episodes: B names: the episode that each sample comes from.
    features: {feature: (B T *shape)}, as the store holds them.
    present: {camera or feature: (B) bool}, False for samples that lack the camera or feature. If a
        camera or feature is not in this mapping, every sample has it.
    embodiment: (B) int64: for each sample, the index of its store in the recipe's list of stores.
    begins: (B) bool, whether the sample's first frame is the first of its episode.
    share: in training, the number of the batch's actions that count (`action_mask`), relative to
        the mean of all batches of the same optimiser step: 1 if the step has a single batch.
    past: the actions before the frames; None if no action is known.
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
    begins: Tensor | None = None
    share: float = 1.0
    past: PastActions | None = None

    @property
    def targets(self) -> tuple[Tensor, Tensor]:
        """The actions that a loss compares with, and their mask; both (B T H A).

        Raises ValueError if the batch has none.
        """
        if self.actions is None or self.action_mask is None:
            raise ValueError(
                "the loss compares with batch.actions and batch.action_mask, and the batch has none"
            )
        return self.actions, self.action_mask

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
            elif isinstance(value, PastActions):
                moved[entry.name] = PastActions(
                    value.actions.to(where, non_blocking=True),
                    value.known.to(where, non_blocking=True),
                )
        return replace(self, **moved)
