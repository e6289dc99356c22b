"""Parts that keep the contract pass every check; each way of breaking it fails the checks that are
meant for it.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from core import (
    ActionTokens,
    Backbone,
    PolicyHead,
    TextEncoder,
    TokenGroup,
    TokenKind,
    TokenSequence,
    VisionEncoder,
    attention_mask,
    concatenate,
    make_memory,
    masked_mean_per_sample,
    masked_mse,
    pack,
)
from core.testing import Setup, checks_for
from core.testing.stand_in import StandIn


class Vision(VisionEncoder):
    """One token per camera: its mean colour, projected."""

    width = 6

    def __init__(self, config, *, cameras, text_width):
        super().__init__()
        self.cameras = sorted(cameras)
        self.project = nn.Linear(3, self.width)
        self.text = nn.Linear(text_width, self.width)

    def colours(self, images):
        means = torch.stack(
            [images[name].float().mean((-1, -2)) / 255 for name in self.cameras], dim=2
        )  # (B T V C)
        return means.to(self.project.weight.dtype)

    def words(self, text):
        return (text.tokens * text.mask[..., None]).sum(1) / text.mask.sum(1, keepdim=True).to(
            text.tokens.dtype
        )

    def forward(self, images, text):
        return TokenGroup(
            self.project(self.colours(images)) + self.text(self.words(text))[:, None, None]
        )


class VisionWithDeadParameter(Vision):
    def __init__(self, config, *, cameras, text_width):
        super().__init__(config, cameras=cameras, text_width=text_width)
        self.unused = nn.Parameter(torch.zeros(3))


class VisionAcrossFrames(Vision):
    def colours(self, images):
        return (
            super()
            .colours(images)
            .mean(1, keepdim=True)
            .expand(-1, images["wrist"].shape[1], -1, -1)
        )


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
    """Every token becomes the mean of the tokens that it may see, projected."""

    width = 6

    def __init__(self, config):
        super().__init__()
        self.project = nn.Linear(self.width, self.width)

    def seen(self, sequence):
        mask, length = attention_mask(sequence), sequence.tokens.shape[1]
        return (
            torch.ones(1, length, length, dtype=torch.bool).tril()
            if mask is None
            else mask.squeeze(1)
        )

    def forward(self, sequence):
        weights = self.seen(sequence).to(sequence.tokens.dtype)
        return self.project(
            sequence.tokens + weights @ sequence.tokens / weights.sum(-1, keepdim=True)
        )


class MixerSeesPadding(Mixer):
    def seen(self, sequence):
        padding = (
            torch.zeros_like(sequence.frame, dtype=torch.bool)
            if sequence.mask is None
            else ~sequence.mask
        )
        return super().seen(sequence) | padding[:, None, :]


class MixerSeesLaterFrames(Mixer):
    def seen(self, sequence):
        mask = (
            torch.ones_like(sequence.frame, dtype=torch.bool)
            if sequence.mask is None
            else sequence.mask
        )
        first = (sequence.frame == 0) & (sequence.kind == TokenKind.VISION)
        return super().seen(sequence) | (mask & ~first)[:, None, :] & first[:, :, None]


class MixerSeesLaterBlocks(Mixer):
    def seen(self, sequence):
        mask = (
            torch.ones_like(sequence.frame, dtype=torch.bool)
            if sequence.mask is None
            else sequence.mask
        )
        return (sequence.frame[:, None, :] <= sequence.frame[:, :, None]) & mask[:, None, :]


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


class Head(PolicyHead):
    """Projects the sum of the readouts so far."""

    def __init__(self, config, *, context, action):
        super().__init__()
        self.shape = (action.horizon, action.dim)
        self.width = context.width
        self.project = nn.Linear(context.width, action.horizon * action.dim)

    def history(self, readout):
        return readout.mean(2).cumsum(1)

    def actions(self, total):
        return self.project(total).sigmoid().unflatten(-1, self.shape)

    def forward(self, context, generator):
        return self.actions(self.history(context.readout))

    def loss(self, context, batch, generator):
        return {"action": masked_mse(self(context, generator), batch.actions, batch.action_mask)}

    def initial_state(self, rows):
        return {"total": self.project.weight.new_zeros(rows, self.width)}

    def act(self, context, state, generator):
        total = state["total"] + context.readout.mean(2)[:, 0]
        return self.actions(total), {"total": total}


class NoisyHead(Head):
    """Adds noise of its own to every frame's actions."""

    def forward(self, context, generator):
        total = self.history(context.readout)
        return self.actions(total + generator.normal(*total.shape).to(total.dtype))

    def act(self, context, state, generator):
        total = state["total"] + context.readout.mean(2)[:, 0]
        noise = generator.normal(len(total), 1, self.width)[:, 0].to(total.dtype)
        return self.actions(total + noise), {"total": total}


class HeadDrawsGlobally(Head):
    def forward(self, context, generator):
        total = self.history(context.readout)
        return self.actions(total + torch.randn_like(total))


class HeadKeepsRowsTogether(Head):
    def initial_state(self, rows):
        return {"total": torch.zeros(1, self.width)}


class HeadSharesState(Head):
    """Every row remembers the same, so that none can begin anew."""

    def act(self, context, state, generator):
        actions, state = super().act(context, state, generator)
        return actions, {"total": state["total"].sum(0, keepdim=True).expand_as(state["total"])}


class HeadAcrossSamples(Head):
    def actions(self, total):
        actions = super().actions(total)
        return (actions + actions.mean(0)) / 2


class HeadSeesLaterFrames(Head):
    def history(self, readout):
        return readout.mean(2).flip(1).cumsum(1).flip(1)


class HeadForgetsState(Head):
    def act(self, context, state, generator):
        return super().act(context, self.initial_state(len(context.readout)), generator)


class HeadHidesState(Head):
    calls = 0

    def actions(self, total):
        self.calls += 1
        return super().actions(total / self.calls)


class HeadActsOnHiddenState(Head):
    total = 0

    def act(self, context, state, generator):
        self.total = self.total + context.readout.mean(2)[:, 0]
        return self.actions(self.total), {}


class HeadIgnoresActionMask(Head):
    def loss(self, context, batch, generator):
        return {"action": (self(context, generator) - batch.actions).square().mean()}


class HeadWithUndefinedLoss(Head):
    def loss(self, context, batch, generator):
        wrong = (self(context, generator) - batch.actions).square() * batch.action_mask
        return {"action": wrong.sum() / batch.action_mask.sum()}


class HeadWithDetachedLoss(Head):
    def loss(self, context, batch, generator):
        return {
            name: term.detach() for name, term in super().loss(context, batch, generator).items()
        }


class HeadForgetsToSave(Head):
    def __init__(self, config, *, context, action):
        super().__init__(config, context=context, action=action)
        self.register_buffer("scale", torch.rand(context.width), persistent=False)

    def actions(self, total):
        return super().actions(total * self.scale)


class HeadOverflowsInBfloat16(Head):
    def __init__(self, config, *, context, action):
        super().__init__(config, context=context, action=action)
        self.register_buffer("decay", torch.tensor(0.999), persistent=False)

    def actions(self, total):
        return super().actions(total.sign() * 0 / (1 - self.decay) + total)


class HeadOfOneFrame(Head):
    def forward(self, context, generator):
        return super().forward(context, generator)[:, -1]


class TokensHead(Head):
    """Adds the mean of all tokens that a frame may see to its readout."""

    needs = frozenset({"tokens"})

    def visible(self, context):
        return context.attention_mask(1)[:, 0, :, : context.memory.tokens.shape[1]]  # (S F L)

    def seen(self, context):
        weights = self.visible(context).to(context.readout.dtype)
        mean = weights @ context.memory.tokens / weights.sum(-1, keepdim=True)
        return context.unfold(mean).squeeze(2)  # (B T D)

    def forward(self, context, generator):
        return self.actions(self.history(context.readout) + self.seen(context))

    def act(self, context, state, generator):
        total = state["total"] + context.readout.mean(2)[:, 0]
        return self.actions(total + self.seen(context)[:, 0]), {"total": total}


class TokensHeadSeesPadding(TokensHead):
    def visible(self, context):
        frame = context.memory.sequence.frame
        return frame[:, None, :] <= context.fold(context.frame[..., None])[:, :, None]


class TokensHeadSaysNothing(TokensHead):
    needs = frozenset()


class HeadMisspellsNeed(Head):
    needs = frozenset({"token"})


class HeadLosesState(Head):
    def history(self, readout):
        return readout.mean(2)

    def act(self, context, state, generator):
        return self.actions(context.readout.mean(2)[:, 0]), {}


class HeadWithFigure(Head):
    def validation_error(self, context, batch, generator):
        return masked_mean_per_sample(
            (self(context, generator) - batch.actions).abs(), batch.action_mask
        )


class HeadWithFigureOfAFrame(HeadWithFigure):
    def validation_error(self, context, batch, generator):
        return ((self(context, generator) - batch.actions).abs() * batch.action_mask).mean((2, 3))


class HeadWithFigureOfABatch(HeadWithFigure):
    def validation_error(self, context, batch, generator):
        figure = super().validation_error(context, batch, generator)
        return figure - figure.mean()


class InterleavedBothWays(Interleaved):
    def pack(self, group, frame, kind, readout):
        return pack(group, frame, kind, readout, 2 * frame + (kind == TokenKind.ACTION))


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
    ("backbone", MixerSeesLaterFrames, {"later_frames_are_not_seen", "blocks_are_obeyed"}),
    ("backbone", MixerSeesLaterBlocks, {"blocks_are_obeyed"}),
    ("backbone", MixerForgetsFrames, {"all_observations_are_seen"}),
    ("backbone", MixerAcrossSamples, {"samples_are_independent"}),
    ("backbone", MixerWithoutMaskDiffers, {"no_mask_is_a_full_mask"}),
    (
        "backbone",
        RememberingForgetsPast,
        {"later_tokens_continue_a_memory", "extensions_are_rows_of_their_frames"},
    ),
    (
        "backbone",
        RememberingIgnoresBlocks,
        {"blocks_are_obeyed", "extensions_are_rows_of_their_frames"},
    ),
    ("backbone", RememberingDropsALayer, {"memory_is_what_forward_gives"}),
    (
        "action_tokens",
        InterleavedUnpacked,
        {"sequence_is_well_formed", "samples_are_independent", "padding_is_not_seen"},
    ),
    ("action_tokens", InterleavedInOneFrame, {"sequence_is_well_formed"}),
    ("action_tokens", InterleavedCountsWrong, {"sequence_is_well_formed"}),
    ("action_tokens", InterleavedDraws, {"nothing_is_drawn_from_the_global_generator"}),
    ("action_tokens", InterleavedBothWays, {"sequence_is_well_formed"}),
    ("action_tokens", InterleavedDropsMask, {"padding_is_not_seen", "samples_are_independent"}),
    ("action_tokens", InterleavedForgetsContext, {"window_is_frame_by_frame"}),
    ("action_tokens", InterleavedIgnoresText, {"observation_and_instruction_are_seen"}),
    ("policy_head", HeadAcrossSamples, {"samples_are_independent", "state_is_rows"}),
    ("policy_head", HeadSeesLaterFrames, {"later_frames_are_not_seen", "window_is_frame_by_frame"}),
    ("policy_head", HeadForgetsState, {"window_is_frame_by_frame"}),
    ("policy_head", HeadHidesState, {"output_is_repeatable"}),
    ("policy_head", HeadActsOnHiddenState, {"window_is_frame_by_frame", "state_is_rows"}),
    (
        "policy_head",
        HeadDrawsGlobally,
        {"nothing_is_drawn_from_the_global_generator", "output_is_repeatable"},
    ),
    ("policy_head", HeadKeepsRowsTogether, {"state_is_rows"}),
    ("policy_head", HeadSharesState, {"window_is_frame_by_frame"}),
    ("policy_head", HeadIgnoresActionMask, {"masked_actions_do_not_count"}),
    ("policy_head", HeadWithUndefinedLoss, {"masked_actions_do_not_count"}),
    ("policy_head", HeadWithDetachedLoss, {"loss_is_scalar_terms"}),
    ("policy_head", TokensHeadSeesPadding, {"padding_is_not_seen"}),
    ("policy_head", HeadMisspellsNeed, {"needs_are_known"}),
    ("policy_head", HeadWithFigureOfAFrame, {"validation_error_is_a_figure_per_sample"}),
    ("policy_head", HeadWithFigureOfABatch, {"validation_error_is_a_figure_per_sample"}),
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


def test_a_sound_backbone_that_remembers_passes_every_check():
    assert not failures("backbone", Remembering)


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_part_passes_every_check(kind):
    assert not failures(kind, SOUND[kind])


@pytest.mark.parametrize("head", [NoisyHead, TokensHead, HeadWithFigure])
def test_a_head_that_draws_or_reads_tokens_or_validates_itself_passes_every_check(head):
    assert not failures("policy_head", head)


def test_a_head_is_shown_what_it_says_that_it_needs_and_no_more():
    assert "actions_have_their_shape" in failures("policy_head", TokensHeadSaysNothing)


def test_a_state_that_changes_its_keys_is_found():
    failed = failures("policy_head", HeadLosesState)
    assert "expected the keys ['total'], received []" in str(failed["state_is_rows"])


def test_a_kind_without_checks_is_said():
    with pytest.raises(
        ValueError, match="no checks for a 'policy_heads'; there are checks for vision_encoder"
    ):
        checks_for("policy_heads", Head, None)


@pytest.mark.parametrize(
    ("kind", "build", "expected"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_broken_part_fails_the_checks_that_are_meant_for_it(kind, build, expected):
    failed = failures(kind, build)
    assert expected <= set(failed)
    side_effects = {
        TextWithoutIds,
        HeadHidesState,
        HeadOfOneFrame,
        HeadDrawsGlobally,
        InterleavedDraws,
        RememberingDropsALayer,
    }  # what they compute breaks other checks too
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

    def build(config, *, context, action):
        widths.append(context.width)
        return Head(config, context=context, action=action)

    for check in checks_for("policy_head", build, None, Setup(width=12, tokens=1)):
        check()
    assert set(widths) == {12}
