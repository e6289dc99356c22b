"""What denoisers are told of several frames, and the targets that belong to it."""

from dataclasses import replace

import pytest
import torch

from core import ActionSpec, ConfigError, Context, ContextSpec, TokenGroup
from core.testing import Setup, stand_in
from core.testing.stand_in import context_of, context_spec, newest_frame, windows
from plugins.heads.denoising.condition import Condition
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from tests.contexts import context_from

WINDOW, HORIZON = 4, 3


def make(frames=3, condition="readout", spec=None, window=WINDOW):
    config = DenoiserConfig(condition=condition, observation_frames=frames)
    spec = spec or ContextSpec(width=2, action_tokens=1)
    return Condition(config, spec, ActionSpec(window=window, horizon=HORIZON, dim=2))


def numbered_frames():
    """Readouts (1 4 1 2) in which every number of a frame is the frame's index."""
    return context_from(torch.arange(4.0).view(1, 4, 1, 1).expand(-1, -1, -1, 2))


def batch(begins=None, ends_at=9):
    """Windows (2 4), whose action at frame t is t + 1, until the episode ends."""
    step = torch.arange(WINDOW)[:, None] + torch.arange(HORIZON)
    actions = (step + 1.0)[None, ..., None].expand(2, -1, -1, 2)
    mask = (step < ends_at)[None, ..., None].expand(2, -1, -1, 2)
    targets = replace(stand_in.batch(Setup()), actions=actions, action_mask=mask)
    return replace(targets, begins=None if begins is None else torch.tensor(begins))


# ------------------------------------------------------------------------------- what is observed


def test_frames_are_joined_oldest_first_and_the_first_is_repeated():
    readout = make().of_window(numbered_frames()).readout[0, :, 0, ::2]
    assert readout.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_each_action_token_is_joined_with_itself():
    context = context_from(torch.arange(8.0).view(1, 4, 2, 1))
    condition = make(frames=2, spec=ContextSpec(width=1, action_tokens=2))
    assert (condition.context.width, condition.context.action_tokens) == (2, 2)
    assert condition.of_window(context).readout[0, 1].tolist() == [[0, 2], [1, 3]]


def test_acting_sees_what_a_window_sees():
    condition, context = make(), numbered_frames()
    window = condition.of_window(context).readout
    state = condition.initial_state(1, window)
    for t in range(WINDOW):
        frame, state = condition.of_newest(newest_frame(context, t), state)
        assert torch.equal(frame.readout, window[:, t : t + 1])


def test_one_frame_needs_no_memory():
    condition, context = make(frames=1), numbered_frames()
    assert condition.initial_state(1, context.readout) == {}
    assert torch.equal(condition.of_newest(context, {})[0].readout, context.readout)


def test_an_observation_is_proprioception_and_all_vision_tokens():
    given = Setup()
    condition = make(1, "observation", context_spec(given), window=3)
    assert condition.needs == {"vision"}
    context = context_of(given, windows(given), needs=condition.needs)
    readout = condition.of_window(context).readout
    assert readout.shape[2:] == (1, condition.context.width)
    expected = torch.cat([context.proprio, context.vision.tokens.flatten(2)], dim=-1)
    assert torch.equal(readout[:, :, 0], expected)


def test_hidden_tokens_are_zeros():
    tokens = torch.ones(2, 1, 2, 3)
    mask = torch.tensor([[[True, False]], [[True, True]]])
    spec = ContextSpec(width=4, action_tokens=0, vision_width=3, vision_tokens=2)
    context = Context(
        readout=torch.zeros(2, 1, 0, 4),
        frame=torch.zeros(2, 1, dtype=torch.int64),
        vision=TokenGroup(tokens, mask),
    )
    readout = make(1, "observation", spec).of_window(context).readout
    assert readout[:, 0, 0].tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]


# ------------------------------------------------------------------------------------ the targets


def test_past_actions_are_those_of_the_frames_before():
    targets = make().targets(batch(begins=[True, True]))
    assert targets.actions.shape == targets.action_mask.shape == (2, WINDOW, HORIZON + 2, 2)
    counted = torch.where(targets.action_mask, targets.actions, 0)[0, ..., 0]
    assert counted.tolist() == [
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 6],
    ]


def test_only_frames_whose_condition_the_window_holds_count():
    mask = make().targets(batch(begins=[True, False])).action_mask.any(dim=(2, 3))
    assert mask.tolist() == [[True] * 4, [False, False, True, True]]


def test_frames_past_the_end_do_not_count():
    mask = make().targets(batch(ends_at=2)).action_mask[0, ..., 0].int()
    assert mask.tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0] * 5, [0] * 5]


# --------------------------------------------------------------------------------------- mistakes


def test_a_window_that_is_too_short_is_refused():
    with pytest.raises(ConfigError, match=r"observation_frames: 3 .*set data\.window = 3"):
        make(window=2)


def test_an_encoder_that_does_not_say_how_many_tokens_it_gives_is_refused():
    with pytest.raises(ConfigError, match=r"policy_head\.condition: .*'resnet_keypoints'"):
        make(1, "observation")
