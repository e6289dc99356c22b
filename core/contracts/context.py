"""What policy heads read: the backbone's outputs for the observed frames.

A head reads the same dataclass, `Context`, during training and while acting.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from core.contracts.attention import attention_mask, token_positions
from core.contracts.batch import Memory, State, TokenGroup, TokenKind, TokenSequence
from core.contracts.parts import Backbone, LayerSpec
from core.episodes.episode import Feature
from core.episodes.normalization import ProprioMethod
from core.errors import JoineryError

T = TypeVar("T")
# larger than every block index in a sequence, and larger than every index in `block` of `extend`
_BLOCKS_PER_EXTENSION = 2**32


@dataclass(frozen=True)
class ContextSpec:
    """Sizes of the context that a policy head will read; the head is built with them.

    width: width of the readout and of the tokens (D).
    action_tokens: number of action tokens per frame (Q).
    vision_width: width of context.vision.
    vision_tokens: number of tokens of a frame in context.vision (N); 0 if the vision encoder does
        not say.
    proprio_dim: number of proprioceptive values (P).
    proprio_normalization: how they are normalised, `data.proprio_normalization` in the recipe.
    layers: sizes of the backbone's layers; None if the backbone does not offer "keys_values".
    vocabulary: number of tokens that context.logits scores; 0 if there is no output layer.
    embodiments: names of the stores; context.embodiment holds indices into this tuple.
    features: {name: feature}, the type of each entry of context.features.
    """

    width: int
    action_tokens: int
    vision_width: int = 0
    vision_tokens: int = 0
    proprio_dim: int = 0
    proprio_normalization: ProprioMethod = "mean_std"
    layers: LayerSpec | None = None
    vocabulary: int = 0
    embodiments: tuple[str, ...] = ("",)
    features: Mapping[str, Feature] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a policy computed from a window of T frames; while acting, from one new frame (T = 1).

    readout: (B T Q D), hidden states of the action tokens.
    frame: (B T) int64, index of each frame within its sequence.
    proprio: (B T P), normalised.
    embodiment: (B) int64: for each sample, the index of its store in `ContextSpec.embodiments`.
    features: {name: (B T ...)}, as recorded, not normalised.
    present: {camera or feature: (B) bool}, as in Batch.
    vision: (B T N D_vision), the vision encoder's tokens; None unless the head needs "vision".
    memory: what the backbone computed from all tokens, in S sequences of B * T / S frames each;
        None unless the head needs "tokens", "keys_values", "hidden_states" or "extend".
    extensions: number of calls of `extend` that led to this context.
    backbone: the backbone, which runs the tokens of `extend`.
    words: the layers of the text encoder that compute `embed` and `logits`.
    state: the head's state before the window's first frame, tensors (B ...), for a head that
        carries; None: the window begins with the initial state. While acting it is None, because
        the state is an argument of `act`.
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
    state: State | None = None

    def extend(self, tokens: Tensor, block: Tensor | None = None) -> tuple[Tensor, Self]:
        """Run n more tokens per frame -> their hidden states (B T n D), and the longer context.

        tokens: (B T n D), the new tokens. A new token sees the observed tokens of its frame and of
            the sequence's earlier frames, and the tokens that earlier calls added to its frame.
            Neither earlier tokens nor tokens of other frames see a new token.
        block: (n) int64: token i of the n tokens sees token j of them if block(j) <= block(i). None
            means that token i sees token j if j <= i.

        A second call reuses the keys and values of earlier tokens; it does not compute them again.
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
        """Return the attention mask of `count` extra tokens per frame (S 1 F*count L+F*count) bool.

        A head needs this mask to run added tokens through its own layers; `extend` applies the
        mask by itself. The rows are the added tokens, frame after frame. The first L columns are
        the memory's tokens; the other columns are the added tokens, in the order of the rows.
        F = B * T / S is the number of frames in a sequence. `block` means the same as in `extend`.
        """
        added = self._extension(self._empty_tokens(count), block)
        mask = attention_mask(added, self._required_memory.sequence)
        assert mask is not None
        return mask

    def positions(self, count: int) -> Tensor:
        """Return the positions (S F*count) int64 of `count` tokens added to each frame."""
        added = self._extension(self._empty_tokens(count), None)
        return token_positions(added, self._required_memory.sequence)

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate queries or keys (S heads n d) for positions (S n), as the backbone does."""
        return x if self.backbone is None else self.backbone.rotate(x, position)

    def fold(self, x: Tensor) -> Tensor:
        """(B T n ...) -> (S F*n ...): put the frames of each sequence one after another."""
        sequences, frames = len(self._required_memory.tokens), self.frame.numel()
        return x.reshape(sequences, frames // sequences * x.shape[2], *x.shape[3:])

    def unfold(self, x: Tensor) -> Tensor:
        """(S F*n ...) -> (B T n ...): undo `fold`."""
        count = x.shape[0] * x.shape[1] // self.frame.numel()
        return x.reshape(*self.frame.shape, count, *x.shape[2:])

    def embed(self, ids: Tensor) -> Tensor:
        """Embed token ids (B n) as the text encoder does -> (B n D)."""
        return self._required_words.embed(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the text encoder's output layer: hidden states (... D) -> (... vocabulary)."""
        return self._required_words.logits(hidden)

    def detached(self) -> Self:
        """Return a copy of the context whose tensors pass no gradient back to the backbone."""
        detached = map_tensors(replace(self, backbone=None, words=None), Tensor.detach)
        return replace(detached, backbone=self.backbone, words=self.words)

    @property
    def _required_memory(self) -> Memory:
        if self.memory is None:
            raise JoineryError(
                "the context holds no memory: the head must say in `needs` what it reads of that"
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
        """Make a sequence of tokens (B T n D) that are private to their frame and in new blocks."""
        count = tokens.shape[2]
        if block is None:
            block = torch.arange(count, device=tokens.device)
        block = block + _BLOCKS_PER_EXTENSION * (1 + self.extensions)
        frame = self.fold(self.frame[..., None].expand(-1, -1, count))
        return TokenSequence(
            tokens=self.fold(tokens),
            mask=None,
            frame=frame,
            kind=torch.full_like(frame, TokenKind.OTHER),
            readout=frame.new_empty(*self.frame.shape, 0),
            block=self.fold(block.expand(*self.frame.shape, -1)),
            private=torch.ones_like(frame, dtype=torch.bool),
        )


@dataclass(frozen=True)
class Words:
    """The text encoder's embedding and output layer, in the backbone's width.

    embed: ids (B n) -> tokens (B n D).
    logits: hidden states (... D) -> (... vocabulary).
    """

    embed: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]


def map_tensors(tree: T, change: Callable[[Tensor], Tensor]) -> T:
    """Replace each tensor x in nested dataclasses, mappings and tuples by `change(x)`."""
    result: Any = tree
    if isinstance(tree, Tensor):
        result = change(tree)
    elif isinstance(tree, tuple):
        result = tuple(map_tensors(entry, change) for entry in tree)
    elif isinstance(tree, Mapping):
        result = {name: map_tensors(entry, change) for name, entry in tree.items()}
    elif is_dataclass(tree) and not isinstance(tree, type):
        entries = {
            entry.name: map_tensors(getattr(tree, entry.name), change) for entry in fields(tree)
        }
        result = replace(tree, **entries)
    return result  # type: ignore[no-any-return]
