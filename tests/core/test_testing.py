"""Parts that keep the contract pass every check; each way of breaking it fails the checks that are meant for it."""

import pytest
import torch
from torch import nn

from core import (
    ActionTokens,
    Backbone,
    PolicyHead,
    TextEncoder,
    TokenGroup,
    TokenSequence,
    VisionEncoder,
    concatenate,
    masked_mse,
    pack,
)
from core.testing import Given, checks_for


class Vision(VisionEncoder):
    """One token per camera: its mean colour, projected."""

    width = 6

    def __init__(self, config, *, cameras, text_width):
        super().__init__()
        self.cameras = sorted(cameras)
        self.project = nn.Linear(3, self.width)
        self.text = nn.Linear(text_width, self.width)

    def colours(self, images):
        means = torch.stack([images[name].float().mean((-1, -2)) / 255 for name in self.cameras], dim=2)  # (B T V C)
        return means.to(self.project.weight.dtype)

    def words(self, text):
        return (text.tokens * text.mask[..., None]).sum(1) / text.mask.sum(1, keepdim=True).to(text.tokens.dtype)

    def forward(self, images, text):
        return TokenGroup(self.project(self.colours(images)) + self.text(self.words(text))[:, None, None])


class VisionWithDeadParameter(Vision):
    def __init__(self, config, *, cameras, text_width):
        super().__init__(config, cameras=cameras, text_width=text_width)
        self.unused = nn.Parameter(torch.zeros(3))


class VisionAcrossFrames(Vision):
    def colours(self, images):
        return super().colours(images).mean(1, keepdim=True).expand(-1, images["wrist"].shape[1], -1, -1)


class VisionAcrossCameras(Vision):
    def colours(self, images):
        return super().colours(images).flip(2)


class VisionAcrossSamples(Vision):
    def colours(self, images):
        colours = super().colours(images)
        return colours - colours.mean(0)


class VisionOfAnotherWidth(Vision):
    def forward(self, images, text):
        return TokenGroup(super().forward(images, text).tokens[..., :4])


class VisionReadsPaddedText(Vision):
    def words(self, text):
        return text.tokens.mean(1)


class Text(TextEncoder):
    """Letters, embedded."""

    width = 6

    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Embedding(128, self.width)

    def tokenize(self, instruction):
        return [ord(letter) for letter in instruction]

    def forward(self, ids, mask):
        return TokenGroup(self.embedding(ids), mask)


class TextMixesPadding(Text):
    def forward(self, ids, mask):
        x = self.embedding(ids)
        return TokenGroup(x - x.mean(1, keepdim=True), mask)


class TextDropsMask(Text):
    def forward(self, ids, mask):
        return TokenGroup(self.embedding(ids))


class TextWithoutIds(Text):
    def tokenize(self, instruction):
        return [] if "light" in instruction else super().tokenize(instruction)


class Mixer(Backbone):
    """Every token becomes the mean of the real tokens up to its frame, projected."""

    width = 6

    def __init__(self, config):
        super().__init__()
        self.project = nn.Linear(self.width, self.width)

    def seen(self, sequence):
        mask = torch.ones_like(sequence.is_action) if sequence.mask is None else sequence.mask
        return (sequence.frame[:, None, :] <= sequence.frame[:, :, None]) & mask[:, None, :]

    def forward(self, sequence):
        weights = self.seen(sequence).to(sequence.tokens.dtype)
        return self.project(sequence.tokens + weights @ sequence.tokens / weights.sum(-1, keepdim=True))


class MixerSeesPadding(Mixer):
    def seen(self, sequence):
        return sequence.frame[:, None, :] <= sequence.frame[:, :, None]


class MixerSeesLaterFrames(Mixer):
    def seen(self, sequence):
        mask = torch.ones_like(sequence.is_action) if sequence.mask is None else sequence.mask
        return mask[:, None, :].expand(-1, mask.shape[1], -1)


class MixerForgetsFrames(Mixer):
    def seen(self, sequence):
        same = sequence.frame[:, None, :] == sequence.frame[:, :, None]
        return super().seen(sequence) & same


class MixerAcrossSamples(Mixer):
    def forward(self, sequence):
        hidden = super().forward(sequence)
        return hidden + hidden[:, :1].mean(0)


class MixerWithoutMaskDiffers(Mixer):
    def forward(self, sequence):
        hidden = super().forward(sequence)
        return hidden * 2 if sequence.mask is None and sequence.tokens.shape[0] > 1 else hidden


class Interleaved(ActionTokens):
    """Text, then image and action tokens frame by frame."""

    def __init__(self, config, *, width, window, proprio_dim, text_prefix):
        super().__init__()
        self.context = window
        self.action = nn.Parameter(torch.randn(1, width))

    def frame(self, frames, words, per_frame):
        return torch.cat([torch.zeros(words, dtype=torch.int64), torch.arange(frames).repeat_interleave(per_frame)])

    def pack(self, group, frame, is_action, readout):
        return pack(group, frame, is_action, readout)

    def group(self, text, frames):
        return concatenate([text, frames])

    def layout(self, vision, text, proprio):
        batch, window, images = vision.tokens.shape[:3]
        per_frame, words = images + 1, text.tokens.shape[1]
        frames = torch.cat([vision.tokens, self.action.expand(batch, window, -1, -1)], dim=2)
        group = self.group(text, TokenGroup(frames.flatten(1, 2)))
        length = group.tokens.shape[1]
        columns = words + per_frame * torch.arange(1, window + 1) - 1
        is_action = torch.zeros(length, dtype=torch.bool)
        is_action[columns] = True
        readout = (columns + length * torch.arange(batch)[:, None])[..., None]
        return self.pack(group, self.frame(window, words, per_frame), is_action, readout)


class InterleavedUnpacked(Interleaved):
    def pack(self, group, frame, is_action, readout):
        shape = group.tokens.shape[:2]
        return TokenSequence(group.tokens, group.mask, frame.expand(shape), is_action.expand(shape), readout)


class InterleavedInOneFrame(Interleaved):
    def frame(self, frames, words, per_frame):
        return super().frame(frames, words, per_frame) * 0


class InterleavedDropsMask(Interleaved):
    def group(self, text, frames):
        return concatenate([TokenGroup(text.tokens), frames])


class InterleavedForgetsContext(Interleaved):
    def __init__(self, config, *, width, window, proprio_dim, text_prefix):
        super().__init__(config, width=width, window=window, proprio_dim=proprio_dim, text_prefix=text_prefix)
        self.context = 1


class InterleavedIgnoresText(Interleaved):
    def group(self, text, frames):
        return concatenate([TokenGroup(text.tokens * 0, text.mask), frames])


class Head(PolicyHead):
    """Projects the sum of the readouts so far."""

    def __init__(self, config, *, width, action):
        super().__init__()
        self.shape = (action.horizon, action.dim)
        self.project = nn.Linear(width, action.horizon * action.dim)

    def history(self, readout):
        return readout.mean(2).cumsum(1)

    def actions(self, total):
        return self.project(total).sigmoid().unflatten(-1, self.shape)

    def forward(self, readout):
        return self.actions(self.history(readout))

    def loss(self, readout, batch):
        return {"action": masked_mse(self(readout), batch.actions, batch.action_mask)}

    def step(self, readout, state):
        total = readout.mean(1) if state is None else state + readout.mean(1)
        return self.actions(total), total


class HeadAcrossSamples(Head):
    def actions(self, total):
        actions = super().actions(total)
        return (actions + actions.mean(0)) / 2


class HeadSeesLaterFrames(Head):
    def history(self, readout):
        return readout.mean(2).flip(1).cumsum(1).flip(1)


class HeadForgetsState(Head):
    def step(self, readout, state):
        return super().step(readout, None)


class HeadHidesState(Head):
    calls = 0

    def actions(self, total):
        self.calls += 1
        return super().actions(total / self.calls)


class HeadStepsHideState(Head):
    total = 0

    def step(self, readout, state):
        self.total = self.total + readout.mean(1)
        return self.actions(self.total), None


class HeadIgnoresActionMask(Head):
    def loss(self, readout, batch):
        return {"action": (self(readout) - batch.actions).square().mean()}


class HeadWithUndefinedLoss(Head):
    def loss(self, readout, batch):
        wrong = (self(readout) - batch.actions).square() * batch.action_mask
        return {"action": wrong.sum() / batch.action_mask.sum()}


class HeadWithDetachedLoss(Head):
    def loss(self, readout, batch):
        return {name: term.detach() for name, term in super().loss(readout, batch).items()}


class HeadForgetsToSave(Head):
    def __init__(self, config, *, width, action):
        super().__init__(config, width=width, action=action)
        self.register_buffer("scale", torch.rand(width), persistent=False)

    def actions(self, total):
        return super().actions(total * self.scale)


class HeadOverflowsInBfloat16(Head):
    def __init__(self, config, *, width, action):
        super().__init__(config, width=width, action=action)
        self.register_buffer("decay", torch.tensor(0.999), persistent=False)

    def actions(self, total):
        return super().actions(total.sign() * 0 / (1 - self.decay) + total)


class HeadOfOneFrame(Head):
    def forward(self, readout):
        return super().forward(readout)[:, -1]


SOUND = {
    "vision_encoder": Vision,
    "text_encoder": Text,
    "backbone": Mixer,
    "action_tokens": Interleaved,
    "policy_head": Head,
}
BROKEN = [
    ("vision_encoder", VisionWithDeadParameter, {"gradients_reach_every_parameter"}),
    ("vision_encoder", VisionAcrossFrames, {"frames_are_independent"}),
    ("vision_encoder", VisionAcrossCameras, {"cameras_are_apart"}),
    ("vision_encoder", VisionAcrossSamples, {"samples_are_independent"}),
    ("vision_encoder", VisionOfAnotherWidth, {"shape_is_declared"}),
    ("vision_encoder", VisionReadsPaddedText, {"padded_text_is_not_seen"}),
    ("text_encoder", TextMixesPadding, {"padding_is_not_seen"}),
    ("text_encoder", TextDropsMask, {"mask_is_passed_on"}),
    ("text_encoder", TextWithoutIds, {"tokens_are_ids"}),
    ("backbone", MixerSeesPadding, {"padding_is_not_seen", "samples_are_independent"}),
    ("backbone", MixerSeesLaterFrames, {"later_frames_are_not_seen"}),
    ("backbone", MixerForgetsFrames, {"all_observations_are_seen"}),
    ("backbone", MixerAcrossSamples, {"samples_are_independent"}),
    ("backbone", MixerWithoutMaskDiffers, {"no_mask_is_a_full_mask"}),
    ("action_tokens", InterleavedUnpacked, {"sequence_is_well_formed", "samples_are_independent"}),
    ("action_tokens", InterleavedInOneFrame, {"later_frames_are_not_seen", "window_is_frame_by_frame"}),
    ("action_tokens", InterleavedDropsMask, {"padding_is_not_seen", "samples_are_independent"}),
    ("action_tokens", InterleavedForgetsContext, {"window_is_frame_by_frame"}),
    ("action_tokens", InterleavedIgnoresText, {"observation_and_instruction_are_seen"}),
    ("policy_head", HeadAcrossSamples, {"samples_are_independent"}),
    ("policy_head", HeadSeesLaterFrames, {"later_frames_are_not_seen", "window_is_frame_by_frame"}),
    ("policy_head", HeadForgetsState, {"window_is_frame_by_frame"}),
    ("policy_head", HeadHidesState, {"output_is_repeatable"}),
    ("policy_head", HeadStepsHideState, {"window_is_frame_by_frame"}),
    ("policy_head", HeadIgnoresActionMask, {"masked_actions_do_not_count"}),
    ("policy_head", HeadWithUndefinedLoss, {"masked_actions_do_not_count"}),
    ("policy_head", HeadWithDetachedLoss, {"loss_is_scalar_terms"}),
    ("policy_head", HeadForgetsToSave, {"state_dict_round_trip"}),
    ("policy_head", HeadOverflowsInBfloat16, {"bfloat16_is_finite"}),
    ("policy_head", HeadOfOneFrame, {"actions_have_their_shape"}),
]


def failures(kind, build):
    """Name -> error of the checks that fail."""
    failed = {}
    for check in checks_for(kind, build, None):
        try:
            check()
        except Exception as error:  # noqa: BLE001
            failed[str(check)] = error
    return failed


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_part_passes_every_check(kind):
    assert not failures(kind, SOUND[kind])


@pytest.mark.parametrize(("kind", "build", "expected"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_part_fails_the_checks_that_are_meant_for_it(kind, build, expected):
    failed = failures(kind, build)
    assert expected <= set(failed)
    side_effects = {TextWithoutIds, HeadHidesState, HeadOfOneFrame}  # what they compute breaks other checks too
    assert build in side_effects or set(failed) == expected
    for name in expected:
        assert isinstance(failed[name], AssertionError)
        assert "expected" in str(failed[name])
        assert "received" in str(failed[name])


def test_checks_leave_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    failures("policy_head", Head)
    assert torch.equal(torch.rand(4), expected)


def test_given_reaches_the_part():
    widths = []

    def build(config, *, width, action):
        widths.append(width)
        return Head(config, width=width, action=action)

    for check in checks_for("policy_head", build, None, Given(width=12, tokens=1)):
        check()
    assert set(widths) == {12}
