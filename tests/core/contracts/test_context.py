"""What heads read: frames and sequences, insulation, and errors where a need is not declared."""

from dataclasses import fields

import pytest
import torch

from core import Context, JoineryError
from core.testing import Setup
from core.testing.stand_in import context_of, windows

SETUP = Setup()
FRAMES_PER_SEQUENCE = [("interleaved", SETUP.action.window), ("policy_head", 1)]


@pytest.mark.parametrize(("formulation", "frames"), FRAMES_PER_SEQUENCE)
def test_unfold_undoes_fold(formulation, frames):
    context = context_of(Setup(formulation=formulation), windows(SETUP))
    batch, window = context.frame.shape
    x = torch.arange(batch * window * 2 * 5.0).view(batch, window, 2, 5)
    folded = context.fold(x)
    assert folded.shape == (batch * window // frames, frames * 2, 5)
    assert torch.equal(context.unfold(folded), x)


@pytest.mark.parametrize(("formulation", "frames"), FRAMES_PER_SEQUENCE)
def test_added_tokens_see_earlier_tokens_and_each_other(formulation, frames):
    context = context_of(Setup(formulation=formulation), windows(SETUP))
    mask = context.attention_mask(2, torch.zeros(2, dtype=torch.int64))
    length = context.memory.tokens.shape[1]
    for f in range(frames):
        for i in range(2):
            row = mask[0, 0, 2 * f + i]
            assert row[:length].tolist() == (context.memory.sequence.frame[0] <= f).tolist()
            same_frame = [k // 2 == f for k in range(2 * frames)]
            assert row[length:].tolist() == same_frame
    per_frame = length // frames
    expected = [[(f + 1) * per_frame + i for f in range(frames) for i in range(2)]]
    assert context.positions(2)[:1].tolist() == expected


def test_a_detached_context_is_the_same_without_gradients():
    context = context_of(SETUP, windows(SETUP).requires_grad_())
    assert context.readout.requires_grad
    detached = context.detached()
    assert detached.backbone is context.backbone
    for x, y in zip(tensors(context), tensors(detached), strict=True):
        assert torch.equal(x, y)
        assert not y.requires_grad


def tensors(context):
    memory = context.memory
    layers = [*memory.keys, *memory.values, *memory.hidden_states]
    return [context.readout, context.vision.tokens, context.proprio, memory.tokens, *layers]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda context: context.extend(torch.zeros(1, 1, 2, 4)),
            r'needs = frozenset\(\{"extend"\}\)',
        ),
        (lambda context: context.attention_mask(2), "must say in `needs` what it reads"),
        (lambda context: context.logits(torch.zeros(1, 4)), r'needs = frozenset\(\{"logits"\}\)'),
    ],
)
def test_a_need_that_is_not_declared_is_named_in_the_error(ask, message):
    with pytest.raises(JoineryError, match=message):
        ask(Context(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, dtype=torch.int64)))


def test_every_field_is_described():
    for entry in fields(Context):
        assert entry.name in Context.__doc__, entry.name
