"""Contract tests of action-token strategies: a sound one passes, broken ones fail theirs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from core import ActionTokens, TokenGroup, TokenKind, TokenSequence, concatenate, pack
from tests.core.testing.failing import assert_fails, failures


class Interleaved(ActionTokens):
    """Text, then image and action tokens frame by frame."""

    count = 1

    def __init__(self, config, *, width, action):
        super().__init__()
        self.context = action.window
        self.action = nn.Parameter(torch.randn(1, width))

    def frame(self, frames, words, per_frame):
        return torch.cat(
            [
                torch.zeros(words, dtype=torch.int64),
                torch.arange(frames).repeat_interleave(per_frame),
            ]
        )

    def pack(self, group, frame, kind, readout):
        return pack(group, frame, kind, readout)

    def group(self, text, frames):
        return concatenate([text, frames])

    def layout(self, vision, text, proprio, batch, generator):
        batch_size, window, images = vision.tokens.shape[:3]
        per_frame, words = images + 1, text.tokens.shape[1]
        frames = torch.cat([vision.tokens, self.action.expand(batch_size, window, -1, -1)], dim=2)
        group = self.group(text, TokenGroup(frames.flatten(1, 2)))
        length = group.tokens.shape[1]
        columns = words + per_frame * torch.arange(1, window + 1) - 1
        kind = torch.full((length,), TokenKind.VISION)
        kind[:words], kind[columns] = TokenKind.TEXT, TokenKind.ACTION
        readout = (columns + length * torch.arange(batch_size)[:, None])[..., None]
        return self.pack(group, self.frame(window, words, per_frame), kind, readout)


class InterleavedUnpacked(Interleaved):
    def pack(self, group, frame, kind, readout):
        shape = group.tokens.shape[:2]
        return TokenSequence(
            group.tokens, group.mask, frame.expand(shape), kind.expand(shape), readout
        )


class InterleavedCountsWrong(Interleaved):
    count = 2


class InterleavedDraws(Interleaved):
    def group(self, text, frames):
        return concatenate([text, TokenGroup(frames.tokens * torch.rand(()))])


class InterleavedInOneFrame(Interleaved):
    def frame(self, frames, words, per_frame):
        return super().frame(frames, words, per_frame) * 0


class InterleavedDropsMask(Interleaved):
    def group(self, text, frames):
        return concatenate([TokenGroup(text.tokens), frames])


class InterleavedForgetsContext(Interleaved):
    def __init__(self, config, *, width, action):
        super().__init__(config, width=width, action=action)
        self.context = 1


class InterleavedIgnoresText(Interleaved):
    def group(self, text, frames):
        return concatenate([TokenGroup(text.tokens * 0, text.mask), frames])


class InterleavedTextLast(Interleaved):
    """Image and action tokens frame by frame, and the text after the images of the first frame."""

    def layout(self, vision, text, proprio, batch, generator):
        batch_size, window, images = vision.tokens.shape[:3]
        words, per_frame = text.tokens.shape[1], images + 1
        first, others = vision.tokens[:, 0], vision.tokens[:, 1:]
        action = self.action.expand(batch_size, 1, -1)
        later = torch.cat([others, self.action.expand(batch_size, window - 1, -1, -1)], dim=2)
        group = concatenate(
            [TokenGroup(first), text, TokenGroup(torch.cat([action, later.flatten(1, 2)], dim=1))]
        )
        length = group.tokens.shape[1]
        columns = words + per_frame * torch.arange(1, window + 1) - 1
        kind = torch.full((length,), TokenKind.VISION)
        kind[images : images + words], kind[columns] = TokenKind.TEXT, TokenKind.ACTION
        readout = (columns + length * torch.arange(batch_size)[:, None])[..., None]
        frame = torch.arange(window).repeat_interleave(per_frame)
        frame = torch.cat([torch.zeros(words, dtype=torch.int64), frame])
        return self.pack(group, frame, kind, readout)


class InterleavedBothWays(Interleaved):
    def pack(self, group, frame, kind, readout):
        return pack(group, frame, kind, readout, 2 * frame + (kind == TokenKind.ACTION))


class InterleavedSeesMaskedActions(Interleaved):
    def layout(self, vision, text, proprio, batch, generator):
        sequence = super().layout(vision, text, proprio, batch, generator)
        if batch is None or batch.actions is None:
            return sequence
        return replace(sequence, tokens=sequence.tokens + batch.actions.mean())


class InterleavedReadsPast(Interleaved):
    """Adds each frame's past action to its image tokens."""

    reads_past = True

    def layout(self, vision, text, proprio, batch, generator, past):
        if past is not None:
            known = self.shown(past.actions * past.known[..., None])
            vision = TokenGroup(vision.tokens + known.sum(dim=-1)[..., None, None])
        return super().layout(vision, text, proprio, batch, generator)

    def shown(self, actions):
        return actions


class InterleavedReadsFutureActions(InterleavedReadsPast):
    def shown(self, actions):
        return actions.roll(-1, dims=1)


class InterleavedIgnoresPast(InterleavedReadsPast):
    def shown(self, actions):
        return 0 * actions


class InterleavedLosesItsTerm(Interleaved):
    def layout(self, vision, text, proprio, batch, generator):
        sequence = super().layout(vision, text, proprio, batch, generator)
        if batch is None or batch.actions is None:
            return sequence
        return replace(sequence, losses={"size": self.action.square().mean()})


BROKEN = [
    (
        InterleavedUnpacked,
        {"sequence_is_well_formed", "samples_are_independent", "padding_is_not_seen"},
    ),
    (InterleavedInOneFrame, {"sequence_is_well_formed"}),
    (InterleavedCountsWrong, {"sequence_is_well_formed"}),
    (InterleavedDraws, {"nothing_is_drawn_from_the_global_generator"}),
    (InterleavedBothWays, {"sequence_is_well_formed"}),
    (InterleavedSeesMaskedActions, {"masked_actions_are_not_seen"}),
    (InterleavedLosesItsTerm, {"losses_are_scalar_terms"}),
    (InterleavedReadsFutureActions, {"past_actions_are_seen_from_their_frame_on"}),
    (InterleavedIgnoresPast, {"past_actions_are_seen_from_their_frame_on"}),
    (InterleavedDropsMask, {"padding_is_not_seen", "samples_are_independent"}),
    (InterleavedForgetsContext, {"window_is_frame_by_frame"}),
    (InterleavedTextLast, {"text_prefix_stands_before_the_images"}),
    (
        InterleavedIgnoresText,
        {"observation_and_instruction_are_seen", "text_prefix_stands_before_the_images"},
    ),
]
# What these compute is so wrong that other checks fail as well.
FAIL_OTHERS_TOO = {InterleavedDraws}


@pytest.mark.parametrize("build", [Interleaved, InterleavedReadsPast])
def test_a_sound_action_token_strategy_passes_every_check(build):
    assert not failures("action_tokens", build)


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_action_token_strategy_fails_the_checks_of_its_rule(build, expected):
    assert_fails("action_tokens", build, expected, others_too=build in FAIL_OTHERS_TOO)
