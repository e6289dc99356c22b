"""Defaults of the contracts, on which simple parts rely."""

import pytest
import torch

from core import ActionSpec, Backbone, Context, PolicyHead, TokenSequence
from tests.contexts import context_from, noise


class Doubling(Backbone):
    width = 2

    def forward(self, sequence):
        return sequence.tokens * 2


class Mean(PolicyHead):
    """Predicts the mean of the readout for each of two actions of one number."""

    def forward(self, context, generator):
        return context.readout.mean((2, 3))[..., None, None].expand(-1, -1, 2, 1)

    def loss(self, context, batch, generator):
        return {}


def test_dimensions_that_are_not_binary_are_continuous():
    assert ActionSpec(window=1, horizon=2, dim=4, binary=(1, 3)).continuous == (0, 2)
    assert ActionSpec(window=1, horizon=2, dim=2).continuous == (0, 1)


def test_read_picks_the_action_tokens_out_of_forward():
    tokens = torch.arange(12.0).view(2, 3, 2)
    label = torch.zeros(2, 3, dtype=torch.int64)
    readout = torch.tensor([[[0, 2]], [[3, 5]]])
    received = Doubling().read(TokenSequence(tokens, None, label, label, readout))
    assert torch.equal(received[:, 0], 2 * tokens[:, [0, 2]])


def test_a_backbone_without_memory_says_what_it_offers():
    with pytest.raises(NotImplementedError, match=r"Doubling offers \[\], and so has no memory"):
        Doubling().remember(None)


def test_positions_are_no_rotations_by_default():
    x = torch.ones(1, 2, 3, 4)
    assert Doubling().rotate(x, torch.arange(3)[None]) is x


def test_a_head_acts_by_its_newest_frame_and_remembers_nothing():
    head, readout = Mean(), torch.arange(6.0).view(1, 3, 1, 2)
    context: Context = context_from(readout)
    assert head.initial_state(1) == {}
    actions, state = head.act(context, {}, noise())
    assert actions.tolist() == [[[4.5], [4.5]]]
    assert state == {}
    assert head.validation_error(context, None, noise()) is None


@pytest.mark.parametrize("missing", ["forward", "loss"])
def test_a_head_without_a_method_of_the_contract_cannot_be_made(missing):
    class Half(PolicyHead):
        pass

    setattr(Half, {"forward": "loss", "loss": "forward"}[missing], lambda self: None)
    with pytest.raises(TypeError, match="abstract"):
        Half()
