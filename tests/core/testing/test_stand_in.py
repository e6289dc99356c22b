"""The backbone and the contexts that policy heads are tested on."""

import pytest
import torch

from core.testing import Setup
from core.testing.common import BATCH
from core.testing.stand_in import (
    OBSERVATION_TOKENS,
    SPEC,
    Steady,
    context_of,
    newest_frame,
    windows,
)

SETUP = Setup()
WINDOW = SETUP.action.window
FRAMES_PER_SEQUENCE = [("interleaved", WINDOW), ("policy_head", 1)]


@pytest.mark.parametrize(("formulation", "frames"), FRAMES_PER_SEQUENCE)
def test_a_context_has_the_shapes_of_the_setup(formulation, frames):
    context = context_of(Setup(formulation=formulation), windows(SETUP))
    assert context.readout.shape == (BATCH, WINDOW, SETUP.tokens, SETUP.width)
    assert context.proprio.shape == (BATCH, WINDOW, SETUP.proprio_dim)
    assert context.vision.tokens.shape == (BATCH, WINDOW, OBSERVATION_TOKENS, SETUP.vision_width)
    assert len(context.memory.tokens) == BATCH * WINDOW // frames
    assert len(context.memory.keys) == len(context.memory.values) == SPEC.depth
    assert len(context.memory.hidden_states) == SPEC.depth + 1


def test_a_context_holds_what_is_needed_and_no_more():
    nothing = context_of(SETUP, windows(SETUP), needs=frozenset())
    assert nothing.memory is nothing.vision is nothing.words is None
    tokens = context_of(SETUP, windows(SETUP), needs=frozenset({"tokens"})).memory
    assert tokens.keys == tokens.values == tokens.hidden_states == ()
    keys = context_of(SETUP, windows(SETUP), needs=frozenset({"keys_values"})).memory
    assert len(keys.keys) == SPEC.depth
    assert keys.hidden_states == ()


@pytest.mark.parametrize(("formulation", "frames"), FRAMES_PER_SEQUENCE)
def test_the_newest_frame_is_that_of_the_window(formulation, frames):
    context = context_of(Setup(formulation=formulation), windows(SETUP))
    assert len(context.memory.tokens) == BATCH * WINDOW // frames
    for t in range(WINDOW):
        frame = newest_frame(context, t)
        assert frame.frame.shape == (BATCH, 1)
        assert torch.equal(frame.readout[:, 0], context.readout[:, t])
        assert torch.equal(frame.proprio[:, 0], context.proprio[:, t])
        assert len(frame.memory.tokens) == BATCH


def test_steady_noise_is_the_same_for_every_frame_of_a_row():
    noise = Steady(range(2)).normal(2, 3, 4)
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(Steady(range(2)).normal(2, 1, 4), noise[:, :1])


def test_one_steady_draw_differs_from_the_next():
    generator = Steady(range(2))
    assert not torch.equal(generator.uniform(2, 1, 4), generator.uniform(2, 1, 4))
