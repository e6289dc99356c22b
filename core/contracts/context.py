"""What a policy made of its observations, as policy heads see it: the same when training and
acting.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from core.contracts.attention import attention_mask, token_positions
from core.contracts.batch import Memory, TokenGroup, TokenKind, TokenSequence
from core.contracts.parts import Backbone, LayerSpec
from core.episodes.episode import Feature
from core.errors import JoineryError

T = TypeVar("T")
_EXTENSION = 2**32  # larger than any block of a sequence, or of what is added to it


@dataclass(frozen=True)
class ContextSpec:
    """What a policy head is told at build about the context that it will read."""

    width: int  # D of readout and tokens
    action_tokens: int  # Q
    vision_width: int = 0  # D of context.vision
    proprio_dim: int = 0  # P
    layers: LayerSpec | None = None  # None: the backbone keeps no layers
    vocabulary: int = 0  # words that context.logits scores, where the head needs that
    embodiments: tuple[str, ...] = (
        "",
    )  # names of the stores, of which context.embodiment is the index
    features: Mapping[str, Feature] = field(default_factory=dict)  # of context.features


@dataclass(frozen=True)
class Context:
    """What the policy made of a window of observations (T frames), or of one new frame while acting
    (T = 1).

    readout (B T Q D): hidden states of the action tokens.
    frame (B T) int64: each frame's index within its sequence.
    proprio (B T P), normalised; embodiment (B) int64, index of the store that a sample comes from;
    features {name:
    (B T ...)} as recorded; present {camera or feature: (B) bool}: all as in Batch.
    vision (B T N D_vision): before the backbone, where the head needs it.
    memory: of all tokens, where the head needs tokens, layers or `extend`. Its S sequences hold B *
    T / S frames each.
    extensions: how often `extend` was called. backbone, words: what `extend`, and `embed` and
    `logits`, compute with.
    """

    readout: Tensor
    frame: Tensor
    proprio: Tensor | None = None
    embodiment: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    present: Mapping[str, Tensor] = field(default_factory=dict)
    vision: TokenGroup | None = None
    memory: Memory | None = None
    extensions: int = 0
    backbone: Backbone | None = None
    words: "Words | None" = None

    def extend(self, tokens: Tensor, block: Tensor | None = None) -> tuple[Tensor, Self]:
        """Run n more tokens of each frame through the backbone -> hidden states (B T n D), and the
        longer context.

        tokens (B T n D) see all of their sequence up to their frame, those that were added to it
        before, and among themselves those whose block (n) int64 is not larger; None: causal. No
        other token sees them. The backbone computes keys and values of what stood before once,
        however often this is called.
        """
        if self.backbone is None or self.memory is None:
            raise JoineryError(
                'the context cannot be extended: the head must say needs = frozenset({"extend"})'
            )
        sequence = self._extension(tokens, block)
        memory = self.backbone.remember(sequence, self.memory)
        hidden = self.unfold(memory.tokens[:, -sequence.tokens.shape[1] :])
        return hidden, replace(self, memory=memory, extensions=self.extensions + 1)

    def attention_mask(self, count: int, block: Tensor | None = None) -> Tensor:
        """What `count` tokens that a head adds to each frame may see -> (S 1 F*count L+F*count)
        bool.

        Columns are the memory's tokens, then the added ones, frame after frame; F = B * T / S
        frames. Blocks as in `extend`, which does all this itself: this is for heads with layers of
        their own.
        """
        mask = attention_mask(
            self._extension(self._empty_tokens(count), block), self._required_memory.sequence
        )
        assert mask is not None
        return mask

    def positions(self, count: int) -> Tensor:
        """Positions (S F*count) int64 of `count` tokens that a head adds to each frame."""
        return token_positions(
            self._extension(self._empty_tokens(count), None), self._required_memory.sequence
        )

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Turn queries or keys (S heads n d) at positions (S n) as the backbone turns its own."""
        return x if self.backbone is None else self.backbone.rotate(x, position)

    def fold(self, x: Tensor) -> Tensor:
        """(B T n ...) -> (S F*n ...): side by side what belongs to one sequence."""
        sequences, frames = len(self._required_memory.tokens), self.frame.numel()
        return x.reshape(sequences, frames // sequences * x.shape[2], *x.shape[3:])

    def unfold(self, x: Tensor) -> Tensor:
        """(S F*n ...) -> (B T n ...): back from `fold`."""
        count = x.shape[0] * x.shape[1] // self.frame.numel()
        return x.reshape(*self.frame.shape, count, *x.shape[2:])

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B n) of words -> tokens (B n D), as the text encoder embeds them."""
        return self._required_words.embed(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (... D) -> scores of all words (... vocabulary), from the text encoder's
        output layer.
        """
        return self._required_words.logits(hidden)

    def detached(self) -> Self:
        """The same context without a way back for gradients: the backbone is insulated from the
        head.
        """
        alone = map_tensors(replace(self, backbone=None, words=None), Tensor.detach)
        return replace(alone, backbone=self.backbone, words=self.words)

    @property
    def _required_memory(self) -> Memory:
        if self.memory is None:
            raise JoineryError(
                "the context holds no memory: the head must say in `needs` what it reads of it"
            )
        return self.memory

    @property
    def _required_words(self) -> "Words":
        if self.words is None:
            raise JoineryError(
                'the context has no words: the head must say needs = frozenset({"logits"})'
            )
        return self.words

    def _empty_tokens(self, count: int) -> Tensor:
        return self.readout.new_empty(*self.frame.shape, count, 0)

    def _extension(self, tokens: Tensor, block: Tensor | None) -> TokenSequence:
        """Tokens (B T n D) that join the sequences' frames, seen by nothing but their own frame's
        added tokens.
        """
        count = tokens.shape[2]
        order = torch.arange(count, device=tokens.device) if block is None else block
        frame = self.fold(self.frame[..., None].expand(-1, -1, count))
        behind = _EXTENSION * (
            1 + self.extensions
        )  # every block of the sequences, and of what was added to them
        return TokenSequence(
            tokens=self.fold(tokens),
            mask=None,
            frame=frame,
            kind=torch.full_like(frame, TokenKind.OTHER),
            readout=frame.new_empty(*self.frame.shape, 0),
            block=self.fold((behind + order).expand(*self.frame.shape, -1)),
            private=torch.ones_like(frame, dtype=torch.bool),
        )


@dataclass(frozen=True)
class Words:
    """The words of the text encoder, in the backbone's width."""

    embed: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]


def map_tensors(tree: T, change: Callable[[Tensor], Tensor]) -> T:
    """Change every tensor in dataclasses, mappings and tuples; all else stays as it is."""
    known: Any = tree
    if isinstance(known, Tensor):
        known = change(known)
    elif isinstance(known, tuple):
        known = tuple(map_tensors(entry, change) for entry in known)
    elif isinstance(known, Mapping):
        known = {name: map_tensors(entry, change) for name, entry in known.items()}
    elif is_dataclass(known) and not isinstance(known, type):
        known = replace(
            known,
            **{
                entry.name: map_tensors(getattr(known, entry.name), change)
                for entry in fields(known)
            },
        )
    return known  # type: ignore[no-any-return]
