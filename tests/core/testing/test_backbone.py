"""Contract tests of backbones: sound ones pass, each broken one fails its checks."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from core import Backbone, TokenKind, attention_mask, make_memory
from core.testing.stand_in import StandIn
from tests.core.testing.failing import assert_fails, failures


def mask_of(sequence):
    if sequence.mask is not None:
        return sequence.mask
    return torch.ones_like(sequence.frame, dtype=torch.bool)


class Mixer(Backbone):
    """Every token becomes the mean of the tokens that it may see, projected."""

    width = 6

    def __init__(self, config):
        super().__init__()
        self.project = nn.Linear(self.width, self.width)

    def visible(self, sequence):
        mask, length = attention_mask(sequence), sequence.tokens.shape[1]
        return (
            torch.ones(1, length, length, dtype=torch.bool).tril()
            if mask is None
            else mask.squeeze(1)
        )

    def forward(self, sequence):
        weights = self.visible(sequence).to(sequence.tokens.dtype)
        return self.project(
            sequence.tokens + weights @ sequence.tokens / weights.sum(-1, keepdim=True)
        )


class MixerSeesPadding(Mixer):
    def visible(self, sequence):
        return super().visible(sequence) | ~mask_of(sequence)[:, None, :]


class MixerSeesLaterFrames(Mixer):
    def visible(self, sequence):
        mask = mask_of(sequence)
        first = (sequence.frame == 0) & (sequence.kind == TokenKind.VISION)
        return super().visible(sequence) | (mask & ~first)[:, None, :] & first[:, :, None]


class MixerSeesLaterBlocks(Mixer):
    def visible(self, sequence):
        mask = mask_of(sequence)
        return (sequence.frame[:, None, :] <= sequence.frame[:, :, None]) & mask[:, None, :]


class MixerForgetsFrames(Mixer):
    def visible(self, sequence):
        same = sequence.frame[:, None, :] == sequence.frame[:, :, None]
        return super().visible(sequence) & same


class MixerAcrossSamples(Mixer):
    def forward(self, sequence):
        hidden = super().forward(sequence)
        return hidden + hidden[:, :1].mean(0)


class MixerWithoutMaskDiffers(Mixer):
    def forward(self, sequence):
        hidden = super().forward(sequence)
        return hidden * 2 if sequence.mask is None and sequence.tokens.shape[0] > 1 else hidden


class Remembering(StandIn):
    """The backbone that heads are tested on, as a part of its own."""

    def __init__(self, config):
        super().__init__(16)


class RememberingForgetsPast(Remembering):
    def remember(self, sequence, past=None):
        memory = super().remember(sequence)
        return (
            memory
            if past is None
            else make_memory(
                sequence, memory.tokens, past.keys, past.values, memory.hidden_states, past
            )
        )


class RememberingIgnoresBlocks(Remembering):
    def remember(self, sequence, past=None):
        return super().remember(replace(sequence, block=sequence.frame), past)


class RememberingDropsALayer(Remembering):
    def remember(self, sequence, past=None):
        memory = super().remember(sequence, past)
        return memory if past else replace(memory, keys=memory.keys[1:], values=memory.values[1:])


BROKEN = [
    (MixerSeesPadding, {"padding_is_not_seen", "samples_are_independent"}),
    (MixerSeesLaterFrames, {"later_frames_are_not_seen", "blocks_are_obeyed"}),
    (MixerSeesLaterBlocks, {"blocks_are_obeyed"}),
    (MixerForgetsFrames, {"all_observations_are_seen"}),
    (MixerAcrossSamples, {"samples_are_independent"}),
    (MixerWithoutMaskDiffers, {"no_mask_is_a_full_mask"}),
    (
        RememberingForgetsPast,
        {"later_tokens_continue_a_memory", "extensions_are_rows_of_their_frames"},
    ),
    (RememberingIgnoresBlocks, {"blocks_are_obeyed", "extensions_are_rows_of_their_frames"}),
    (RememberingDropsALayer, {"memory_is_what_forward_gives"}),
]
# What these compute is so wrong that other checks fail as well.
FAIL_OTHERS_TOO = {RememberingDropsALayer}


@pytest.mark.parametrize("build", [Mixer, Remembering])
def test_a_sound_backbone_passes_every_check(build):
    assert not failures("backbone", build)


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_backbone_fails_the_checks_of_its_rule(build, expected):
    assert_fails("backbone", build, expected, others_too=build in FAIL_OTHERS_TOO)
