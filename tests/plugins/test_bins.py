"""The head "bins": OpenVLA's convention in numpy, its tokens, and cached decoding."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given as for_all, settings, strategies as st
from torch.nn import functional as F

from core import ActionSpec, ConfigError
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, context_spec, windows
from plugins.heads.tokens.bins import BinsConfig, BinsHead, bin_of, centre_of
from plugins.heads.tokens.predictor import sample
from tests.contexts import noise
from tests.one_batch import assert_overfits_one_batch
from tests.strangers import batch_of, build, perturbed
from tests.two_modes import assert_two_modes
from tests.uncached import UncachedContext

MIXED = ActionSpec(window=2, horizon=2, dim=3, binary=(1,))
CONTINUOUS = ActionSpec(window=3, horizon=1, dim=2)
BINARY = ActionSpec(window=2, horizon=2, dim=2, binary=(0, 1), bounded=False)
SMALL = BinsConfig(bins=8)
WORDS = BinsConfig(bins=8, vocabulary="language_model", reserved=1)
PARALLEL = replace(SMALL, decode="parallel")
CASES = [
    (SMALL, Setup(action=MIXED)),
    (WORDS, Setup(action=MIXED)),
    (PARALLEL, Setup(action=MIXED)),
    (replace(WORDS, decode="parallel"), Setup(action=MIXED)),
    (replace(WORDS, decode="parallel"), Setup(action=MIXED, tokens=6)),
    (replace(SMALL, temperature=0.7), Setup(action=CONTINUOUS, tokens=1)),
    (replace(PARALLEL, temperature=1.5), Setup(action=BINARY, tokens=4)),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(CASES)
    for check in checks_for("policy_head", BinsHead, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


# ------------------------------------------------------------------------------------ convention


def openvla_ids(actions, words, bins=256):
    """The ids that OpenVLA gives actions, in float64."""
    edges = np.linspace(-1, 1, bins)
    return words - np.digitize(np.clip(actions, -1, 1), edges)


def openvla_actions(ids, words, bins=256):
    """The actions that OpenVLA reads from ids, in float64."""
    edges = np.linspace(-1, 1, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    return centres[np.clip(words - ids - 1, 0, len(centres) - 1)]


@settings(deadline=None)
@for_all(
    bins=st.sampled_from([3, 4, 17, 255, 256, 257, 1000]),
    values=st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=50),
)
def test_tokens_are_openvlas(bins, values):
    actions = torch.tensor(values)
    tokens = bin_of(actions, bins)
    ids = openvla_ids(actions.double().numpy(), 32000, bins)
    np.testing.assert_array_equal(31999 - tokens.numpy(), ids)
    np.testing.assert_allclose(
        centre_of(tokens, bins), openvla_actions(ids, 32000, bins), atol=2e-7
    )


@pytest.mark.parametrize("bins", [3, 17, 256])
def test_numbers_on_and_beside_the_edges_fall_where_numpy_says(bins):
    edges = np.linspace(-1, 1, bins).astype(np.float32)
    values = np.concatenate([edges, *(np.nextafter(edges, np.float32(x)) for x in (-2, 2))])
    expected = 99 - openvla_ids(values.astype(np.float64), 100, bins)
    np.testing.assert_array_equal(bin_of(torch.from_numpy(values), bins), expected)


def test_the_defaults_are_openvlas():
    tokens = bin_of(torch.tensor([-1.0, -2.0, 0.0, 1.0, 3.0]), BinsConfig().bins)
    assert tokens.tolist() == [0, 0, 127, 255, 255]
    assert centre_of(tokens, 256).tolist() == pytest.approx(
        [-254 / 255, -254 / 255, 0, 254 / 255, 254 / 255], abs=1e-6
    )


def test_words_are_the_last_of_the_language_model_in_openvlas_order():
    given = Setup(action=MIXED)
    context = context_of(given, windows(given))
    vocabulary = make(WORDS, given).predictor.decoder.vocabulary
    tokens = torch.arange(8).expand(3, 2, 8)
    ids = 10 - 1 - tokens  # 11 words, of which the last is reserved
    assert ids.min() == 2
    torch.testing.assert_close(
        vocabulary.embed(context, tokens), context.embed(ids.flatten(1)).unflatten(1, (2, 8))
    )
    hidden = torch.randn(3, 2, 4, given.width)
    expected = context.logits(hidden)[..., ids[0, 0]]
    torch.testing.assert_close(vocabulary.score(context, hidden), expected)


def make(config=SMALL, given=None):
    given = given or Setup(action=MIXED)
    torch.manual_seed(0)
    return BinsHead(config, context=context_spec(given), action=given.action).eval()


# ----------------------------------------------------------------------------- tokens and losses


@pytest.mark.parametrize("config", [SMALL, PARALLEL], ids=["autoregressive", "parallel"])
@torch.no_grad()
def test_the_loss_is_the_mean_cross_entropy_of_openvlas_tokens(config):
    given = Setup(action=MIXED)
    head, batch = make(config, given), stand_in.batch(given)
    context = context_of(given, windows(given))
    actions = batch.actions.masked_fill(~batch.action_mask, 0)
    tokens = torch.from_numpy(7 - (openvla_ids(actions.double().numpy(), 8, 8))).flatten(2)
    logits = head.predictor.decoder.logits(context, tokens).double()
    for place in range(6):
        if place % 3 in MIXED.binary:  # only the tokens of 0 and of 1
            others = [k for k in range(8) if k not in (3, 7)]
            logits[:, :, place, others] = -torch.inf
    entropy = F.cross_entropy(logits.flatten(0, 2), tokens.flatten(), reduction="none")
    counts = batch.action_mask.any(dim=-1, keepdim=True).expand(-1, -1, -1, 3)
    assert counts.sum() > batch.action_mask.sum()  # dimensions that a robot lacks count as 0
    expected = entropy[counts.flatten()].mean()
    received = head.loss(context, batch, noise())["token"]
    torch.testing.assert_close(received.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("config", [SMALL, PARALLEL, replace(SMALL, temperature=5.0)])
@torch.no_grad()
def test_actions_are_centres_of_bins_and_binary_ones_zero_or_one(config):
    given = Setup(action=MIXED)
    head = make(config, given)
    perturb(head)
    actions = head(context_of(given, windows(given)), noise())
    centres = openvla_actions(np.arange(1, 9), 9, 8)
    gaps = (actions[..., [0, 2]].double()[..., None] - torch.from_numpy(centres)).abs().min(-1)
    assert gaps.values.max() < 1e-6
    assert set(actions[..., 1].unique().tolist()) <= {0.0, 1.0}
    assert len(actions[..., [0, 2]].unique()) > 2


def perturb(head):
    for number, weight in enumerate(head.parameters()):
        weight += 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))


def test_training_begins_with_all_tokens_about_equally_likely():
    given = Setup(action=CONTINUOUS)
    for config in (BinsConfig(), BinsConfig(decode="parallel")):
        head = make(config, given)
        loss = head.loss(context_of(given, windows(given)), stand_in.batch(given), noise())
        assert loss["token"].item() == pytest.approx(math.log(256), rel=0.1)


def test_samples_follow_their_chances():
    chances = torch.tensor([0.1, 0.0, 0.6, 0.3, 0.0]).expand(1, 20_000, 5)
    drawn = sample(chances, torch.rand(1, 20_000, generator=torch.Generator().manual_seed(0)))
    share = torch.bincount(drawn.flatten(), minlength=5) / 20_000
    torch.testing.assert_close(share, chances[0, 0], rtol=0, atol=0.015)
    assert share[1] == share[4] == 0


def test_the_ends_of_the_noise_draw_tokens_that_have_a_chance():
    chances = torch.tensor([[0.0, 0.25, 0.75, 0.0]]).expand(2, 4)
    drawn = sample(chances, torch.tensor([0.0, 1 - 2**-24]))
    assert drawn.tolist() == [1, 2]


def test_a_greedy_head_has_no_error_of_its_own_and_a_sampling_one_has():
    given = Setup(action=MIXED)
    context, batch = context_of(given, windows(given)), stand_in.batch(given)
    assert make(SMALL, given).validation_error(context, batch, noise()) is None
    head = make(replace(SMALL, temperature=1.0), given)
    assert head.validation_error(context, batch, noise()).shape == (3,)


# ------------------------------------------------------------------------------- a whole policy


@pytest.mark.parametrize("vocabulary", ["own", "language_model"])
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
@torch.no_grad()
def test_cached_decoding_equals_uncached(tmp_path, formulation, vocabulary):
    """Logits of given tokens, one by one on kept keys and values, and without, and all at once."""
    head = f'name = "bins"\nbins = 16\nvocabulary = "{vocabulary}"'
    overrides = [f"action_tokens.formulation={formulation}", "text_encoder.width=32"]
    policy = perturbed(build(tmp_path, head, *overrides, window=2))
    context = policy.context(batch_of(policy, window=2), noise())
    decoder = policy.policy_head.predictor.decoder
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(16, (*context.frame.shape, 12), generator=draw)

    def logits_one_by_one(context):
        logits = []

        def choose(scores, place):
            logits.append(scores)
            return tokens[:, :, place : place + 1]

        decoder.decode(context, choose)
        return torch.cat(logits, dim=2)

    uncached = logits_one_by_one(UncachedContext.of(context))
    torch.testing.assert_close(logits_one_by_one(context), uncached, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoder.logits(context, tokens), uncached, rtol=1e-5, atol=1e-5)
    actions = policy.policy_head(context, noise())
    again = policy.policy_head(UncachedContext.of(context), noise())
    torch.testing.assert_close(actions, again, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("decode", ["autoregressive", "parallel"])
def test_a_head_overfits_one_batch(decode):
    assert_overfits_one_batch(BinsHead, BinsConfig(bins=32, decode=decode), Setup(action=MIXED))


def test_a_language_model_learns_to_write_actions(tmp_path):
    """Almost all weights are those of the other parts, so the whole policy is trained."""
    head = 'name = "bins"\nbins = 17\nvocabulary = "language_model"'
    policy = build(tmp_path, head, "text_encoder.width=32").train()
    batch = batch_of(policy)
    before = policy(batch, noise()).losses["total"].item()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        policy(batch, noise()).losses["total"].backward()
        optimizer.step()
    policy.eval()
    assert policy(batch, noise()).losses["total"] < 0.05 * before
    error = (policy.predict(batch, noise()) - batch.actions).abs()
    assert error[batch.action_mask].max() <= 1 / 16 + 1e-6


def test_sampled_chunks_follow_both_modes():
    config = BinsConfig(bins=33, temperature=1.0)
    assert_two_modes(BinsHead, config, steps=400, learning_rate=2e-2)


# -------------------------------------------------------------------------------------- mistakes


def test_unbounded_actions_are_refused():
    given = Setup(action=replace(MIXED, bounded=False))
    with pytest.raises(
        ConfigError, match=r'policy_head\.name: .*action\.normalization = "min_max"'
    ):
        make(SMALL, given)


@pytest.mark.parametrize("tokens", [0, 4, 12])
def test_action_tokens_that_do_not_divide_the_chunk_are_refused(tokens):
    with pytest.raises(ConfigError, match=r"policy_head\.decode: .*action_tokens\.count = 1 or 6"):
        make(PARALLEL, Setup(action=MIXED, tokens=tokens))


def test_too_few_words_are_refused():
    with pytest.raises(ConfigError, match=r'policy_head\.vocabulary: .*vocabulary = "own"'):
        make(replace(WORDS, reserved=4))


def test_reserved_ids_of_no_language_model_are_refused():
    with pytest.raises(ValueError, match='reserved has no effect with vocabulary = "own"; drop it'):
        replace(SMALL, reserved=1)


@pytest.mark.parametrize(
    ("head", "overrides", "message"),
    [
        ('vocabulary = "language_model"', (), "make the widths agree"),
        ('decode = "parallel"', ("action_tokens.count=0",), "action_tokens.count"),
    ],
)
def test_a_recipe_whose_parts_do_not_fit_is_refused(tmp_path, head, overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, f'name = "bins"\n{head}', *overrides)


def test_a_text_encoder_without_output_layer_is_one_mistake(tmp_path):
    head = 'name = "bins"\nvocabulary = "language_model"'
    vision = 'vision_encoder={name = "timm_vit", model = "vit_tiny_r_s16_p8_224", depth = 1}'
    with pytest.raises(ConfigError) as caught:
        build(tmp_path, head, 'text_encoder={name = "none"}', vision)
    (mistake,) = caught.value.mistakes
    assert "output layer, and it has none" in mistake


def test_loss_without_actions_says_so():
    given = Setup(action=MIXED)
    batch = replace(stand_in.batch(given), actions=None)
    with pytest.raises(ValueError, match=r"batch\.actions"):
        make().loss(context_of(given, windows(given)), batch, noise())
