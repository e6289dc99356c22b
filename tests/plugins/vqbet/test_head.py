"""The head "vqbet": its contract, its two phases, and what it draws."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from core import ActionSpec, ConfigError, Generator
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, windows
from plugins.policies.vqbet.chunks import target_chunks
from plugins.policies.vqbet.head import VQBeTHead
from plugins.policies.vqbet.head_config import VQBeTHeadConfig
from tests import two_modes
from tests.contexts import context_from, noise
from tests.one_batch import REMAINDER, build_head, context_without_gradient, error, train
from tests.plugins.vqbet.heads import ACTION, SMALL, make, train_autoencoder

# with these, a head learns the distribution as it is
FAITHFUL = replace(SMALL, focal_gamma=0.0, temperature=1.0)
PUBLISHED = replace(SMALL, offset_codes="drawn")
SETTINGS = [
    (SMALL, Setup()),
    (
        replace(PUBLISHED, code_weights=(1.0,), mlp=(16,)),
        Setup(action=ACTION, tokens=1),
    ),
    (
        replace(SMALL, focal_gamma=0.0),
        Setup(action=ActionSpec(window=1, horizon=3, dim=2), tokens=3),
    ),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("policy_head", VQBeTHead, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


# ------------------------------------------------------------------------------------------- phases


def losses(head, given):
    terms = head.loss(context_of(given, windows(given)), stand_in.batch(given), noise())
    torch.stack(list(terms.values())).sum().backward()
    return terms


@pytest.mark.parametrize(
    ("frozen", "names"),
    [
        ((), {"reconstruction", "commitment", "code", "offset"}),
        (("code_logits", "offsets"), {"reconstruction", "commitment"}),
        (("autoencoder",), {"code", "offset"}),
        (("autoencoder", "code_logits", "offsets"), {"code", "offset"}),
    ],
)
def test_each_phase_has_the_losses_of_what_trains(frozen, names):
    given = Setup(action=ACTION, width=6)
    head = make()
    for name in frozen:
        head.get_submodule(name).requires_grad_(False)
    context = context_from(windows(given)[:, :, -2:].requires_grad_())
    terms = head.loss(context, stand_in.batch(given), noise())
    assert set(terms) == names
    torch.stack(list(terms.values())).sum().backward()
    assert all((w.grad is None) is not w.requires_grad for w in head.parameters())


def test_codes_follow_only_while_the_autoencoder_trains():
    given = Setup(action=ACTION, width=6)
    for training, trains in ((True, True), (False, True), (True, False)):
        head = make().train(training)
        head.autoencoder.requires_grad_(trains)
        before = {name: x.clone() for name, x in head.autoencoder.codebooks.named_buffers()}
        losses(head, given)
        moved = [
            not torch.equal(x, before[n]) for n, x in head.autoencoder.codebooks.named_buffers()
        ]
        assert all(moved) if training and trains else not any(moved)


@pytest.mark.parametrize("config", [SMALL, FAITHFUL, PUBLISHED])
def test_one_batch_is_overfitted_after_the_first_phase(config):
    setup = Setup(tokens=1)
    head = build_head(VQBeTHead, config, setup)
    targets, context = stand_in.batch(setup), context_without_gradient(head, setup, windows(setup))
    before = error(head, context, targets)
    train_autoencoder(head, context, [targets] * 100)
    train(head, context, [targets] * 200, 1e-2)
    assert error(head, context, targets) < REMAINDER * before


def two_mode_samples(config, setup):
    """Chunks that a head draws after both phases, of `tests.two_modes`' distribution."""
    head = build_head(VQBeTHead, config, setup)
    context = two_modes.same_observation(head, setup, two_modes.ROWS)
    batches = [
        two_modes.batch_of(two_modes.chunks(setup.action, two_modes.ROWS, seed))
        for seed in range(500)
    ]
    train_autoencoder(head, context, batches[300:])
    train(head, context, batches[:300], 1e-2)
    keys = [(row, 0) for row in range(two_modes.SAMPLED_ROWS)]
    with torch.no_grad():
        context = two_modes.same_observation(head, setup, two_modes.SAMPLED_ROWS)
        return head(context, Generator.by_row(keys, torch.device("cpu")))


@pytest.mark.parametrize("setup", [two_modes.CONTINUOUS, two_modes.MIXED])
def test_samples_match_two_modes(setup):
    setup = replace(setup, tokens=1)
    two_modes.check_two_modes(two_mode_samples(FAITHFUL, setup), setup.action)


def test_offsets_of_drawn_codes_lead_to_the_more_frequent_mode():
    setup = replace(two_modes.CONTINUOUS, tokens=1)
    samples = two_mode_samples(replace(FAITHFUL, offset_codes="drawn"), setup)
    with pytest.raises(AssertionError, match="lie in the upper mode, which has 70%"):
        two_modes.check_two_modes(samples, setup.action)


# ------------------------------------------------------------------------------ targets and actions


def test_chunks_of_further_readouts_begin_later_and_count_at_the_last_frame():
    given = Setup(action=replace(ACTION, binary=()), width=6)
    batch = stand_in.batch(given)
    batch = replace(batch, action_mask=torch.ones_like(batch.action_mask))
    head = make(action=given.action)
    chunks = target_chunks(head.dimensions, batch, 2)
    assert torch.equal(chunks.actions[:, :, 0], batch.actions[:, :, :3])
    assert torch.equal(chunks.actions[:, :, 1], batch.actions[:, :, 1:])
    assert chunks.counts.all(0).tolist() == [[True, False], [True, False], [True, True]]
    assert torch.equal(chunks.mask.flatten(3).any(-1), chunks.counts)


def test_masked_actions_are_the_last_before_them():
    head = make(action=ActionSpec(window=1, horizon=4, dim=2), readouts=1)
    batch = two_modes.batch_of(torch.arange(8.0).view(1, 1, 4, 2) + 1)
    batch.action_mask[0, 0, 2:] = False
    batch.action_mask[..., 1] = False
    actions = target_chunks(head.dimensions, batch, 1).actions
    assert actions.flatten(0, 2).tolist() == [[[1, 0], [3, 0], [3, 0], [3, 0]]]


def test_the_horizon_ends_with_the_last_actions_of_further_chunks():
    head, readout = make(), torch.randn(2, 3, 2, 6)
    codes = head._draw(head._logits(readout), noise())
    chunks = head.dimensions.unsigned(head._decode(codes, readout))
    actions = head(context_from(readout), noise())
    assert torch.equal(actions[:, :, :3], chunks[:, :, 0])
    assert torch.equal(actions[:, :, 3], chunks[:, :, 1, -1])


def test_codes_are_drawn_with_their_probabilities():
    head = make(replace(SMALL, codes=4, temperature=0.5))
    logits = torch.tensor([0.0, 1.0, -0.5, 0.3]).expand(1, 20_000, 1, 1, 4)
    shares = head._draw(logits, noise()).flatten().bincount() / 20_000
    torch.testing.assert_close(shares, (logits[0, 0, 0, 0] / 0.5).softmax(-1), rtol=0, atol=0.015)


def test_without_gamma_the_code_loss_is_the_cross_entropy():
    given = Setup(action=ActionSpec(window=1, horizon=4, dim=5), width=6, tokens=1)
    head = make(replace(SMALL, code_weights=(2.0, 0.25), focal_gamma=0.0), given.action, 1)
    context, batch = context_of(given, windows(given)), stand_in.batch(given)
    batch = replace(batch, action_mask=torch.ones_like(batch.action_mask))
    codes = head.autoencoder.encode(batch.actions.flatten(0, 1))
    logits = head.code_logits(context.readout).view(-1, 2, 16)
    expected = sum(
        weight * F.cross_entropy(logits[:, i], codes[:, i]) for i, weight in enumerate((2.0, 0.25))
    )
    torch.testing.assert_close(head.loss(context, batch, noise())["code"], expected)


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("readouts", [0, 5])
def test_readouts_that_do_not_fit_the_horizon_are_refused(readouts):
    with pytest.raises(ConfigError, match=r"policy_head\.name: 'vqbet' .* needs 1 to 4 of them"):
        make(readouts=readouts)


def test_a_head_without_codebooks_is_refused():
    with pytest.raises(ValueError, match="code_weights is empty"):
        VQBeTHeadConfig(code_weights=())
