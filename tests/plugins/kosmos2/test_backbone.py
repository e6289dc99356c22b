"""The decoder: its contract, its last layer for the action tokens alone, gradients, names."""

import math
from dataclasses import replace

import pytest
import torch

from core import Backbone, TokenKind
from core.testing import backbone as backbone_checks, checks_for
from core.testing.common import generator, normal
from plugins.vlms.kosmos2 import Kosmos2Backbone
from tests.plugins.kosmos2.models import (
    TINY,
    batch_of,
    checkpointed_backbone,
    make,
    perturb,
    sequence_of,
)

CHECKS = [
    *checks_for("backbone", Kosmos2Backbone, TINY.backbone),
    *checks_for("backbone", checkpointed_backbone, TINY.backbone),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check()


@pytest.mark.parametrize("attention", ["causal", "prefix"])
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_a_last_layer_for_the_action_tokens_alone_changes_nothing(formulation, attention):
    policy = make(formulation=formulation, attention=attention)
    perturb(policy)
    batch = batch_of(policy)
    gradients = []
    for read in (Backbone.read, Kosmos2Backbone.read):
        policy.zero_grad()
        readout = read(policy.backbone, sequence_of(policy, batch))
        (
            readout * torch.randn(readout.shape, generator=torch.Generator().manual_seed(2))
        ).sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
        )
    expected, received = gradients
    assert expected.keys() == received.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        difference = float((received[name] - gradient).abs().max())
        assert difference <= 1e-4 * float(gradient.abs().max()) + 1e-6 * largest, name


def test_gradients_through_keys_and_values_are_the_same_with_gradient_checkpointing():
    """A head that attends to every layer sends gradients into the middle of each block."""
    gradients = []
    for make_backbone in (Kosmos2Backbone, checkpointed_backbone):
        torch.manual_seed(0)
        backbone = make_backbone(TINY.backbone).train()
        sequence = backbone_checks.sequence(backbone.width, 2, causal=False)
        memory = backbone.remember(sequence)
        parts = [*memory.keys, *memory.values, *memory.hidden_states]
        terms = [(x * normal(*x.shape, seed=i)).sum() for i, x in enumerate(parts)]
        torch.stack(terms).sum().backward()
        gradients.append(
            {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_the_action_token_is_scaled_with_everything_else():
    """RoboVLMs passes [LRN] to Kosmos-2 with the embeddings, all of which are scaled."""
    policy = make(window=1)
    batch = batch_of(policy)
    with torch.no_grad():
        before = policy.context(batch, generator()).readout
        policy.action_tokens.action.mul_(math.sqrt(32))
        sequence = sequence_of(policy, batch)
        torch.testing.assert_close(policy.backbone.read(_unscaled(sequence)), before)


def _unscaled(sequence):
    factor = torch.where(sequence.kind == TokenKind.ACTION, 1 / math.sqrt(32), 1.0)[..., None]
    return replace(sequence, tokens=sequence.tokens * factor)


LAYER = ("attention_norm", "attention.norm", "mlp_norm", "mlp.fc1", "mlp.norm", "mlp.fc2")


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def test_names_of_weights_are_those_of_older_checkpoints():
    policy = make()
    modules = (*LAYER, *(f"attention.{name}" for name in PROJECTIONS))
    modules = ("norm", *(f"layers.{i}.{name}" for i in range(3) for name in modules))
    expected = {f"{name}.{kind}" for name in modules for kind in ("weight", "bias")}
    assert set(policy.backbone.state_dict()) == expected
