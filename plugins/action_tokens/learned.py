"""Learned action tokens, like RoboVLMs' [LRN], Octo's readout tokens and OpenVLA-OFT's chunk."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from einops import rearrange
from torch import Tensor, nn

from core import (
    ActionSpec,
    ActionTokens,
    Batch,
    ConfigError,
    Generator,
    PastActions,
    Register,
    TokenGroup,
    TokenKind,
    TokenSequence,
    concatenate,
    hookimpl,
    pack,
)
from core.weights import NameMap, Pretrained, filter_keys

# the part's tensors in a checkpoint of RoboVLMs
ROBOVLMS_NAMES = NameMap(
    {"action": "model.action_token", "proprio": "model.proprio"}, squeeze=frozenset({"action"})
)
Attention = Literal["causal", "prefix", "chunk", "bidirectional"]


@dataclass(frozen=True)
class LearnedConfig:
    """The tokens of a frame, the frames of a sequence, and which tokens each token attends to."""

    count: Annotated[int, Ge(0)] | Literal["horizon", "horizon_x_action"] = 1
    """number of action tokens per frame; 0 for heads that read other tokens; "horizon": one for
    each action of the chunk; "horizon_x_action": one for each number of the chunk (OpenVLA-OFT).
    """
    formulation: Literal["policy_head", "interleaved", "one_step"] = "policy_head"
    """"policy_head": one sequence per frame, and the head combines the frames; "interleaved": one
    sequence per window, in which the backbone combines the frames; "one_step": one frame only.
    """
    layout: Literal["image_text_action", "text_image_action"] = "image_text_action"
    """order of a frame's tokens."""
    attention: Attention = "causal"
    """"causal": a token sees itself and the tokens before it; "prefix": in addition, the tokens of
    a frame's images, words and proprioception all see one another; "chunk": in addition, the action
    tokens of a frame see one another; "bidirectional": all tokens of a frame see one another. No
    token ever sees a later frame.
    """
    proprio: bool = False
    """whether each frame has a token that is projected from the proprioception."""
    proprio_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """probability that training hides the proprioception of a window, so that the policy cannot
    rely on it alone; zeros, the mean of normalised values, then stand in its place.
    """
    past_action: bool = False
    """whether each frame has a token that is projected from the action executed just before it; at
    the first frame of an episode a learned token stands there.
    """
    past_action_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """probability that training hides the past actions of a window, so that the policy cannot
    merely repeat them; the learned token of a first frame then stands in their place.
    """
    init_std: Annotated[float, Ge(0)] = 0.02
    """standard deviation of the action tokens' initial values; RoboVLMs uses 0."""

    def __post_init__(self) -> None:
        if self.proprio_dropout and not self.proprio:
            raise ValueError("proprio_dropout has no effect with proprio = false; drop it")
        if self.past_action_dropout and not self.past_action:
            raise ValueError("past_action_dropout has no effect with past_action = false; drop it")


class LearnedTokens(ActionTokens):
    """Lays out the tokens of images (i), instruction (x), proprioception (p) and actions (a).

    Each letter is a token, and a digit after it is the index of the token's frame:

    policy_head, one_step   one sequence per frame     image_text_action    i i x x p a
                                                       text_image_action    x x i i p a
    interleaved             one sequence per window    image_text_action    i0 i0 x x p0 a0 i1 ...
                                                       text_image_action    x x i0 i0 p0 a0 i1 ...

    The token of a past action, if there is one, stands behind that of the proprioception.
    The text encoder's prefix, for example <s>, is always at the beginning of a sequence.
    RoboVLMs compares the same three formulations. Its name for "policy_head" is "post", and its
    name for "interleaved" is "pre".

    `pretrained` must name a .ckpt of RoboVLMs.

    Raises ConfigError if the window of "one_step" is longer than one frame, or if `proprio` is true
    and the data have no proprioception.
    """

    source = None  # `pretrained = true` is refused: this part has no default checkpoint

    def __init__(
        self,
        config: LearnedConfig,
        *,
        width: int,
        action: ActionSpec,
        proprio_dim: int,
        text_prefix: int = 0,
    ) -> None:
        super().__init__()
        if config.formulation == "one_step" and action.window != 1:
            raise ConfigError(
                "action_tokens.formulation: 'one_step' sees one frame, and data.window is "
                f"{action.window}; set data.window = 1 or choose 'policy_head' or 'interleaved'"
            )
        if config.proprio and proprio_dim == 0:
            raise ConfigError(
                "action_tokens.proprio is true, and the data record no proprioception; "
                "set it to false"
            )
        numbers = {"horizon": action.horizon, "horizon_x_action": action.horizon * action.dim}
        self.count = config.count if isinstance(config.count, int) else numbers[config.count]
        self.causal = config.attention == "causal"
        self.attention = config.attention
        self.interleaved = config.formulation == "interleaved"
        self.context = action.window if self.interleaved else 1
        self.text_first = config.layout == "text_image_action"
        self.text_prefix = text_prefix
        self.action = nn.Parameter(torch.randn(self.count, width) * config.init_std)
        self.proprio = nn.Linear(proprio_dim, width) if config.proprio else None
        self.proprio_dropout = config.proprio_dropout
        self.reads_past = config.past_action
        self.past_action = nn.Linear(action.dim, width) if config.past_action else None
        first = torch.randn(width) * config.init_std
        self.no_past_action = nn.Parameter(first) if config.past_action else None
        self.past_action_dropout = config.past_action_dropout

    def layout(
        self,
        vision: TokenGroup,
        text: TokenGroup,
        proprio: Tensor | None,
        batch: Batch | None,  # noqa: ARG002 (the layout does not depend on the targets)
        generator: Generator,
        past: PastActions | None = None,
    ) -> TokenSequence:
        """Lay out vision (B T N D), text (B M D) and proprio (B T P) as packed sequences.

        past: the actions (B T A) executed before the frames; None if none of them is known.
        """
        window, images = vision.tokens.shape[1:3]
        span = window if self.interleaved else 1  # number of frames per sequence
        actions = TokenGroup(self.action.expand(*vision.tokens.shape[:2], -1, -1))  # (B T Q D)
        given = [*self._proprio(proprio, generator), *self._past(past, vision, generator)]
        frames = concatenate([vision, *given, actions])  # (B T n D)
        # The words are inserted before the token of `frames` with the index `at`. The text's prefix
        # is inserted before all other tokens.
        at = 0 if self.text_first else images
        prefix, words = _split(_repeat(text, window // span), self.text_prefix)
        group = _insert(prefix, _insert(words, _join(frames, span), at), 0)  # (S L D)
        frame, kind = self._labels(images, span, group.tokens.device)
        for group_of_words, index in ((words, at), (prefix, 0)):
            frame = _insert_label(frame, 0, group_of_words, index)
            kind = _insert_label(kind, TokenKind.TEXT, group_of_words, index)
        is_action = kind == TokenKind.ACTION
        readout = _action_indices(is_action, span * self.count, len(group.tokens)).view(
            *vision.tokens.shape[:2], -1
        )
        return pack(group, frame, kind, readout, self._blocks(frame, is_action), group.grid)

    def _labels(self, images: int, span: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return frame (N) and kind (N) of the tokens of `span` frames, before text is inserted."""
        rest = [TokenKind.PROPRIO] * (self.proprio is not None)
        rest += [TokenKind.OTHER] * (self.past_action is not None)
        rest += [TokenKind.ACTION] * self.count
        kind = torch.full((images + len(rest),), TokenKind.VISION, device=device)
        for i, label in enumerate(rest, images):
            kind[i] = label
        return torch.arange(span, device=device).repeat_interleave(len(kind)), kind.repeat(span)

    def _blocks(self, frame: Tensor, is_action: Tensor) -> Tensor | None:
        """Return the index of each token's block (L); None if the attention is causal.

        A token sees the tokens of its block and of earlier blocks. With "prefix" and "chunk", the
        images, words and proprioception of a frame are one block. With "prefix", each action token
        is a block by itself, and with "chunk", the action tokens of a frame are one block.
        """
        if self.attention == "causal":
            return None
        if self.attention == "bidirectional":
            return frame
        if self.attention == "chunk":
            return 2 * frame + is_action
        # for each token: the number of action tokens in the sequence up to and including that token
        number = is_action.cumsum(0)
        return frame * (self.count + 1) + torch.where(is_action, number - frame * self.count, 0)

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load RoboVLMs' action token, strictly.

        Raises ConfigError if the source has no action token. Also raises it if this part has more
        than one action token or a token of the proprioception: RoboVLMs publishes neither.
        """
        token = filter_keys(weights.tensors, lambda name: name == "model.action_token")
        ROBOVLMS_NAMES.load(self, token, weights.source)

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Return the tensors under the names that they have in a checkpoint of RoboVLMs."""
        return ROBOVLMS_NAMES.publish(self.state_dict())

    def _proprio(self, proprio: Tensor | None, generator: Generator) -> list[TokenGroup]:
        """(B T P) -> [one token per frame (B T 1 D)], or [] if `proprio` is false in the recipe."""
        if self.proprio is None:
            return []
        if proprio is None:
            raise ValueError(
                "batch.proprio is None, and action_tokens.proprio is true: "
                "the batch must hold (B T P)"
            )
        if self.training and self.proprio_dropout:
            is_hidden = generator.uniform(len(proprio), 1, 1) < self.proprio_dropout
            proprio = proprio.masked_fill(is_hidden, 0)
        return [TokenGroup(self.proprio(proprio.to(self.proprio.weight.dtype)).unsqueeze(2))]

    def _past(
        self, past: PastActions | None, vision: TokenGroup, generator: Generator
    ) -> list[TokenGroup]:
        """Return [a token of each frame's past action (B T 1 D)], or [] if the recipe has none."""
        if self.past_action is None or self.no_past_action is None:
            return []
        rows, window = vision.tokens.shape[:2]
        if past is None:
            return [TokenGroup(self.no_past_action.expand(rows, window, 1, -1))]
        known = past.known
        if self.training and self.past_action_dropout:
            known = known & (generator.uniform(rows, 1) >= self.past_action_dropout)
        projected = self.past_action(past.actions.to(self.past_action.weight.dtype))
        tokens = torch.where(known[..., None], projected, self.no_past_action)
        return [TokenGroup(tokens.unsqueeze(2))]


def _join(frames: TokenGroup, span: int) -> TokenGroup:
    """Join every `span` successive frames into one sequence: (B T n D) -> (B*T/span, span*n, D)."""
    pattern = "b (s f) n ... -> (b s) (f n) ..."
    mask = None if frames.mask is None else rearrange(frames.mask, pattern, f=span)
    grid = None if frames.grid is None else frames.grid.repeat(span, 1)
    return TokenGroup(rearrange(frames.tokens, pattern, f=span), mask, grid)


def _repeat(text: TokenGroup, times: int) -> TokenGroup:
    """Copy the instruction of each sample (B M D) to each of its sequences -> (B*times M D)."""
    mask = None if text.mask is None else text.mask.repeat_interleave(times, dim=0)
    return TokenGroup(text.tokens.repeat_interleave(times, dim=0), mask)


def _split(group: TokenGroup, at: int) -> tuple[TokenGroup, TokenGroup]:
    """Split tokens (S N D) before the token with index `at`."""
    masks = (None, None) if group.mask is None else (group.mask[:, :at], group.mask[:, at:])
    grids = (None, None) if group.grid is None else (group.grid[:at], group.grid[at:])
    before, after = group.tokens[:, :at], group.tokens[:, at:]
    return TokenGroup(before, masks[0], grids[0]), TokenGroup(after, masks[1], grids[1])


def _insert(text: TokenGroup, frames: TokenGroup, at: int) -> TokenGroup:
    """Insert text (S M D) into frames (S N D) before their token with index `at` -> (S N+M D)."""
    before, after = _split(frames, at)
    return concatenate([before, text, after])


def _insert_label(labels: Tensor, label: int, text: TokenGroup, at: int) -> Tensor:
    """Insert `label` M times into labels (N), where `_insert` inserts text (S M D) -> (N+M)."""
    return torch.cat([labels[:at], labels.new_full((text.tokens.shape[1],), label), labels[at:]])


def _action_indices(is_action: Tensor, count: int, sequences: int) -> Tensor:
    """Return the indices (S count) of each sequence's action tokens in the flattened tokens (S*L).

    is_action: whether each token of a sequence is an action token (L).
    count: number of action tokens per sequence.

    The indices of a sequence are in ascending order.
    """
    # The stable sort puts action tokens first and keeps their order. Unlike `nonzero`, sorting does
    # not wait for the device.
    columns = torch.argsort((~is_action).long(), stable=True)[:count]
    return columns + len(is_action) * torch.arange(sequences, device=is_action.device)[:, None]


@hookimpl
def register_action_tokens(register: Register) -> None:
    """Register "learned"."""
    register("learned", LearnedConfig, LearnedTokens)
