"""The mixture head: its likelihood against torch.distributions, and what it samples."""

from dataclasses import replace

import pytest
import torch
from torch import distributions as d

from core import ActionSpec, ContextSpec, Generator
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, windows
from plugins.heads.gmm import GMMConfig, GMMHead, Mixture
from tests.contexts import context_from, noise
from tests.one_batch import assert_overfits_one_batch
from tests.two_modes import CONTINUOUS, MIXED, assert_two_modes

SMALL = GMMConfig(components=4, mlp=(32,))
NOISY = replace(SMALL, low_noise=False)
ACTION = ActionSpec(window=3, horizon=4, dim=5, binary=(1, 3))
BINARY = ActionSpec(window=2, horizon=2, dim=2, binary=(0, 1), bounded=False)
SETTINGS = [
    (SMALL, Setup(action=ACTION)),
    (NOISY, Setup(action=replace(ACTION, window=1, bounded=False), tokens=1)),
    (replace(NOISY, components=1, mlp=()), CONTINUOUS),
    (NOISY, Setup(action=BINARY)),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("policy_head", GMMHead, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


@pytest.mark.parametrize("config", [SMALL, NOISY])
def test_one_batch_is_overfitted(config):
    assert_overfits_one_batch(GMMHead, config)


@pytest.mark.parametrize("setup", [CONTINUOUS, MIXED])
def test_samples_match_two_modes(setup):
    assert_two_modes(GMMHead, NOISY, setup=setup, learning_rate=1e-2)


def test_one_gaussian_stands_between_two_modes():
    with pytest.raises(AssertionError, match="in between"):
        assert_two_modes(GMMHead, replace(NOISY, components=1), learning_rate=1e-2)


def mixture(numbers=3, binary=2):
    """Two samples of three frames, four components, five steps."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(2, 3, 4, *shape, generator=generator)

    stds = 0.1 + draw(5, numbers).abs()
    return Mixture(draw().log_softmax(-1), draw(5, numbers), stds, draw(5, binary))


def chunk(numbers=3, binary=2):
    """A chunk for each frame of `mixture`, its continuous dimensions and its binary ones."""
    generator = torch.Generator().manual_seed(1)
    continuous = torch.randn(2, 3, 5, numbers, generator=generator)
    return continuous, torch.randn(2, 3, 5, binary, generator=generator).gt(0).float()


def nothing_masked(actions):
    return tuple(torch.ones_like(x, dtype=torch.bool) for x in actions)


def test_likelihood_of_continuous_chunks_equals_torchs():
    given, actions = mixture(binary=0), chunk(binary=0)
    components = d.Independent(d.Normal(given.means, given.stds), 2)
    torchs = d.MixtureSameFamily(d.Categorical(logits=given.log_weights), components)
    ours = given.log_likelihood(actions, nothing_masked(actions))
    torch.testing.assert_close(ours, torchs.log_prob(actions[0]), rtol=1e-5, atol=1e-5)


def test_likelihood_with_binary_dimensions_equals_torchs():
    given, actions = mixture(), chunk()
    numbers, binary = (x[:, :, None] for x in actions)
    joint = d.Categorical(logits=given.log_weights).logits
    joint = joint + d.Independent(d.Normal(given.means, given.stds), 2).log_prob(numbers)
    joint = joint + d.Independent(d.Bernoulli(logits=given.logits), 2).log_prob(binary)
    ours = given.log_likelihood(actions, nothing_masked(actions))
    torch.testing.assert_close(ours, joint.logsumexp(-1), rtol=1e-5, atol=1e-5)


def test_masked_actions_are_integrated_out():
    """The likelihood equals that of the distribution without them, whatever they hold."""
    given, (numbers, binary) = mixture(), chunk()
    rest = Mixture(
        given.log_weights,
        given.means[..., 1:, :2],
        given.stds[..., 1:, :2],
        given.logits[..., 1:, :],
    )
    fewer = numbers[:, :, 1:, :2], binary[:, :, 1:]
    expected = rest.log_likelihood(fewer, nothing_masked(fewer))
    mask = nothing_masked((numbers, binary))
    for seen in mask:
        seen[:, :, 0] = False
    mask[0][..., 2] = False
    for x, seen in zip((numbers, binary), mask, strict=True):
        x[~seen] = torch.nan
    torch.testing.assert_close(given.log_likelihood((numbers, binary), mask), expected)


def make(config=SMALL, action=ACTION):
    torch.manual_seed(0)
    return GMMHead(config, context=ContextSpec(6, 2), action=action).eval()


def test_the_loss_is_a_mean_over_actions_and_the_error_over_those_of_a_sample():
    head, given = make(), Setup(action=ACTION, width=6)
    context, batch = context_of(given, windows(given)), stand_in.batch(given)
    error = head.validation_error(context, batch, noise())
    share = batch.action_mask.flatten(1).sum(1) / batch.action_mask.sum()
    loss = head.loss(context, batch, noise())
    assert set(loss) == {"nll"}
    torch.testing.assert_close(loss["nll"], (error * share).sum())
    nothing = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
    assert head.loss(context, nothing, noise())["nll"].abs() < 1e-6


def many(given, noise, count=4000):
    """Sample chunks from the mixture of one frame: continuous dimensions and binary ones."""
    alike = Mixture(*(x[:1, :1].expand(count, *x[:1, :1].shape[1:]) for x in vars(given).values()))
    generator = Generator.by_row([(row, 0) for row in range(count)], torch.device("cpu"))
    return alike.sample(generator, noise=noise)


def test_without_noise_a_chunk_is_one_components_means():
    given = mixture()
    numbers, chances = (x[:, 0] for x in many(given, noise=False))
    distance = (numbers[:, None] - given.means[0, 0]).flatten(2).abs().amax(-1)
    nearest = distance.argmin(1)
    assert distance.amin(1).max() == 0
    torch.testing.assert_close(chances, given.logits[0, 0].sigmoid()[nearest])
    shares = nearest.bincount(minlength=4) / len(nearest)
    torch.testing.assert_close(shares, given.log_weights[0, 0].exp(), rtol=0, atol=0.03)


def test_samples_have_the_mixtures_moments():
    given = mixture()
    numbers, binary = (x[:, 0] for x in many(given, noise=True))
    components = d.Independent(d.Normal(given.means, given.stds), 2)
    torchs = d.MixtureSameFamily(d.Categorical(logits=given.log_weights), components)
    torch.testing.assert_close(numbers.mean(0), torchs.mean[0, 0], rtol=0, atol=0.1)
    torch.testing.assert_close(numbers.std(0), torchs.stddev[0, 0], rtol=0.1, atol=0)
    assert set(binary.unique().tolist()) == {0, 1}
    expected = torch.einsum(
        "k,kha->ha", given.log_weights[0, 0].exp(), given.logits[0, 0].sigmoid()
    )
    torch.testing.assert_close(binary.mean(0), expected, rtol=0, atol=0.04)


@pytest.mark.parametrize("bounded", [True, False])
def test_means_stay_where_bounded_actions_are(bounded):
    head = make(action=replace(ACTION, bounded=bounded))
    actions = head(context_from(100 * torch.randn(2, 3, 2, 6)), noise())
    continuous = actions[..., [0, 2, 4]].abs().max()
    assert continuous <= 1 if bounded else continuous > 1


def test_no_component_is_narrower_than_min_std():
    head = make(replace(SMALL, min_std=0.5))
    assert head._mixture(100 * torch.randn(2, 3, 2, 6)).stds.min() >= 0.5


def test_loss_without_actions_says_so():
    given = Setup(action=ACTION, width=6)
    with pytest.raises(ValueError, match=r"batch\.actions"):
        make().loss(
            context_of(given, windows(given)),
            replace(stand_in.batch(given), actions=None),
            noise(),
        )
