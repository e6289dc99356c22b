"""Learned action tokens: vectors that ask the backbone for the action, as in RoboVLMs' [LRN] and Octo's readouts."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from einops import rearrange
from torch import Tensor, nn

from core import ActionTokens, RecipeError, Register, TokenGroup, TokenSequence, concatenate, hookimpl, pack


@dataclass(frozen=True)
class LearnedConfig:
    """What a frame's tokens are, and what a sequence is.

    count: action tokens per frame.
    formulation: "policy_head" one sequence per frame, history in the head; "interleaved" all; "one_step" no history.
    layout: order of a frame's tokens.
    proprio: add one token that is projected from the proprioception.
    init_std: standard deviation of the initial action tokens; RoboVLMs begins with zeros.
    """

    count: Annotated[int, Gt(0)] = 1
    formulation: Literal["policy_head", "interleaved", "one_step"] = "policy_head"
    layout: Literal["image_text_action", "text_image_action"] = "image_text_action"
    proprio: bool = False
    init_std: Annotated[float, Ge(0)] = 0.02


class LearnedTokens(ActionTokens):
    """Lays out image tokens i, instruction x, proprioception p and action tokens a; lower digits are frames.

    policy_head, one_step   a sequence per frame       image_text_action    i i x x p a
                                                       text_image_action    x x i i p a
    interleaved             a sequence per window      image_text_action    i0 i0 x x p0 a0 i1 i1 p1 a1 ...
                                                       text_image_action    x x i0 i0 p0 a0 i1 i1 p1 a1 ...

    The formulations are those that RoboVLMs compares (there: "post", "pre", one-step). Raises RecipeError where
    one_step meets a longer window, or proprio is wanted and the data have none.
    """

    def __init__(self, config: LearnedConfig, *, width: int, window: int, proprio_dim: int) -> None:
        super().__init__()
        _check(config, window, proprio_dim)
        self.per_frame = config.formulation != "interleaved"
        self.context = 1 if self.per_frame else window
        self.text_first = config.layout == "text_image_action"
        self.action = nn.Parameter(torch.randn(config.count, width) * config.init_std)
        self.proprio = nn.Linear(proprio_dim, width) if config.proprio else None

    def layout(self, vision: TokenGroup, text: TokenGroup, proprio: Tensor | None) -> TokenSequence:
        """vision (B T N D), text (B M D), proprio (B T P) -> packed sequences."""
        batch, window, images = vision.tokens.shape[:3]
        frames = concatenate([vision, *self._proprio(proprio), self._actions(vision)])  # (B T n D)
        per_frame, words = frames.tokens.shape[2], text.tokens.shape[1]
        if self.per_frame:
            frames, text = _rearrange(frames, "b t n ... -> (b t) n ..."), _repeat(text, window)
        else:
            frames = _rearrange(frames, "b t n ... -> b (t n) ...")
        group = _insert(text, frames, 0 if self.text_first else images)  # (S L D)
        index = torch.arange(group.tokens.shape[1], device=group.tokens.device) - words  # as if the text stood before
        is_action = (index >= 0) & (index % per_frame >= per_frame - len(self.action))
        readout = self._readout(group, words, per_frame).view(batch, window, -1)
        return pack(group, index.clamp(min=0) // per_frame, is_action, readout)

    def _actions(self, vision: TokenGroup) -> TokenGroup:
        """Return the action tokens of every frame (B T Q D)."""
        batch, window = vision.tokens.shape[:2]
        return TokenGroup(self.action.expand(batch, window, -1, -1))

    def _proprio(self, proprio: Tensor | None) -> list[TokenGroup]:
        """(B T P) -> one token per frame (B T 1 D), or nothing where the recipe wants none."""
        if self.proprio is None:
            return []
        if proprio is None:
            raise RecipeError("action_tokens.proprio is true, and the data give no proprioception; set it to false")
        return [TokenGroup(self.proprio(proprio.to(self.proprio.weight.dtype)).unsqueeze(2))]

    def _readout(self, group: TokenGroup, words: int, per_frame: int) -> Tensor:
        """Where the action tokens, the last of each frame, lie in the flattened (S L) -> (S F Q)."""
        count, length = group.tokens.shape[:2]
        where = group.tokens.device
        ends = torch.arange(words + per_frame, length + 1, per_frame, device=where)  # (F): one past each frame
        columns = ends[:, None] + torch.arange(-len(self.action), 0, device=where)  # (F Q)
        return columns + length * torch.arange(count, device=where)[:, None, None]


def _check(config: LearnedConfig, window: int, proprio_dim: int) -> None:
    if config.formulation == "one_step" and window != 1:
        raise RecipeError(
            f"action_tokens.formulation: 'one_step' sees one frame, and data.window is {window}; "
            "set data.window = 1 or choose 'policy_head' or 'interleaved'"
        )
    if config.proprio and proprio_dim == 0:
        raise RecipeError("action_tokens.proprio is true, and the data record no proprioception; set it to false")


def _rearrange(group: TokenGroup, pattern: str) -> TokenGroup:
    """Apply an einops pattern that ends in an ellipsis to the tokens (... N D) and to their mask (... N)."""
    return TokenGroup(rearrange(group.tokens, pattern), None if group.mask is None else rearrange(group.mask, pattern))


def _repeat(text: TokenGroup, window: int) -> TokenGroup:
    """(B M D) -> (B*T M D): every frame's sequence has the instruction."""
    mask = None if text.mask is None else text.mask.repeat_interleave(window, dim=0)
    return TokenGroup(text.tokens.repeat_interleave(window, dim=0), mask)


def _insert(text: TokenGroup, frames: TokenGroup, at: int) -> TokenGroup:
    """Put the text (S M D) among the frames' tokens (S N D), before the one with index `at` -> (S N+M D)."""
    masks = (None, None) if frames.mask is None else (frames.mask[:, :at], frames.mask[:, at:])
    before = TokenGroup(frames.tokens[:, :at], masks[0])
    return concatenate([before, text, TokenGroup(frames.tokens[:, at:], masks[1])])


@hookimpl
def register_action_tokens(register: Register) -> None:
    """Register "learned"."""
    register("learned", LearnedConfig, LearnedTokens)
