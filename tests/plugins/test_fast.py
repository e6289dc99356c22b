"""The head "fast": its tokens and their loss, sequences that are no chunk, and cached decoding."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core import ActionSpec, ConfigError, DataError
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, context_spec, windows
from plugins.heads.tokens.fast import FastConfig, FastHead
from plugins.heads.tokens.fast_tokenizer import FastTokenizer, fit
from tests.contexts import noise
from tests.one_batch import assert_overfits_one_batch
from tests.strangers import batch_of, build, perturbed
from tests.two_modes import MIXED as TWO_MODES, assert_two_modes, chunks
from tests.uncached import UncachedContext

pytest.importorskip("tokenizers", reason="the extra 'fast' is not installed")

ACTION = ActionSpec(window=2, horizon=3, dim=2, binary=(1,))
UNBOUNDED = ActionSpec(window=2, horizon=3, dim=2, bounded=False)
GIVEN = Setup(action=ACTION, tokens=1, vocabulary=200)
CASES = {
    "one by one": ({}, GIVEN),
    "words": ({"vocabulary": "language_model", "reserved": 3}, GIVEN),
    "parallel": ({"decode": "parallel"}, GIVEN),
    "parallel words": ({"decode": "parallel", "vocabulary": "language_model"}, GIVEN),
    "sampled": ({"temperature": 0.8}, replace(GIVEN, action=UNBOUNDED)),
}
NAMES = [str(check) for check in checks_for("policy_head", FastHead, FastConfig(tokenizer=None))]


def fitted(path, horizon, dim, scale=4):
    """Write a tokenizer that was fitted to random chunks, and return its path."""
    drawn = np.random.default_rng(0).uniform(-1, 1, (200, horizon, dim)).astype(np.float32)
    fit(drawn, scale, vocabulary=150 if scale > 4 else 40).save(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The file of a tokenizer of chunks of 3 x 2 numbers."""
    return fitted(tmp_path_factory.mktemp("fast") / "fast.json", 3, 2)


@pytest.fixture(scope="module")
def checks(tokenizer):
    return {
        case: {
            str(check): check
            for check in checks_for(
                "policy_head", FastHead, FastConfig(tokenizer=tokenizer, **keys), given
            )
        }
        for case, (keys, given) in CASES.items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_contract(checks, case, name):
    checks[case][name]()


def make(tokenizer, given=GIVEN, **keys):
    torch.manual_seed(0)
    config = FastConfig(tokenizer=tokenizer, **keys)
    return FastHead(config, context=context_spec(given), action=given.action).eval()


# ------------------------------------------------------------------------------ tokens and losses


@torch.no_grad()
def test_the_loss_is_the_mean_cross_entropy_up_to_the_end_token(tokenizer):
    head, batch = make(tokenizer), stand_in.batch(GIVEN)
    batch = replace(batch, action_mask=torch.ones_like(batch.action_mask))
    batch.action_mask[0, 1] = False  # a whole chunk
    context = context_of(GIVEN, windows(GIVEN))
    encoded = FastTokenizer.load(tokenizer).encode(batch.actions.flatten(0, 1).numpy())
    assert len({len(ids) for ids in encoded}) > 1
    targets = torch.full((6, head.longest), head.end)
    entropies = []
    for row, ids in zip(targets, encoded, strict=True):
        row[: len(ids)] = torch.tensor(ids)[: head.longest]
    logits = head.predictor.decoder.logits(context, targets.view(3, 2, -1)).flatten(0, 1).double()
    for i, ids in enumerate(encoded):
        count = min(len(ids) + 1, head.longest)
        if i != 1:
            entropies.append(
                F.cross_entropy(logits[i, :count], targets[i, :count], reduction="none")
            )
    received = head.loss(context, batch, noise())["token"]
    torch.testing.assert_close(received.double(), torch.cat(entropies).mean(), rtol=1e-5, atol=0)


def test_a_longer_chunk_than_was_fitted_loses_its_last_tokens(tokenizer):
    head = make(tokenizer)
    head.longest = 2
    tokens = head._encode(torch.rand(2, 1, 3, 2), torch.ones(2, 1, 3, 2, dtype=torch.bool))
    assert tokens.shape == (2, 1, 2)
    assert (tokens != head.end).all()


class Scripted(torch.nn.Module):
    """Stands in for the predictor of a head, and writes given tokens (B T n)."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def decode(self, context, generator, end):
        return self.tokens


def test_actions_are_those_of_the_tokens_before_the_end(tokenizer):
    head = make(tokenizer)
    recorded = np.random.default_rng(1).uniform(-1, 1, (2, 3, 2)).astype(np.float32)
    recorded[..., 1] = recorded[..., 1] > 0
    ids = FastTokenizer.load(tokenizer).encode(recorded)
    longest = max(map(len, ids)) + 3
    rows = [[*row, head.end, *[5, head.end, 7] * 9][:longest] for row in ids]
    head.predictor = Scripted(torch.tensor(rows)[:, None])
    actions = head(None, noise())[:, 0].numpy()
    expected = FastTokenizer.load(tokenizer).decode(ids)
    np.testing.assert_allclose(actions[..., 0], expected[..., 0].clip(-1, 1), atol=1e-6)
    np.testing.assert_allclose(actions[..., 1], expected[..., 1].clip(0, 1), atol=1e-6)
    assert np.abs(actions - recorded).max() < 0.35


def test_any_sequence_of_tokens_is_a_valid_action(tokenizer):
    head = make(tokenizer)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(head.end + 1, (100, 2, 12), generator=draw)
    tokens[0, 0] = head.end
    head.predictor = Scripted(tokens)
    actions = head(None, noise())
    assert actions.shape == (100, 2, 3, 2)
    assert actions[..., 0].abs().max() <= 1
    assert ((actions[..., 1] >= 0) & (actions[..., 1] <= 1)).all()
    assert not actions[0, 0].any()


# --------------------------------------------------------------------------------- a whole policy


@pytest.mark.parametrize("vocabulary", ["own", "language_model"])
@torch.no_grad()
def test_cached_decoding_equals_uncached(tmp_path, vocabulary):
    file = fitted(tmp_path / "fast.json", 3, 4)
    head = f'name = "fast"\ntokenizer = "{file}"\nvocabulary = "{vocabulary}"'
    policy = perturbed(build(tmp_path, head, "text_encoder.width=32", window=2))
    context = policy.context(batch_of(policy, window=2), noise())
    actions = policy.policy_head(context, noise())
    again = policy.policy_head(UncachedContext.of(context), noise())
    torch.testing.assert_close(actions, again, rtol=1e-5, atol=1e-5)
    assert len(actions.flatten(0, 1).unique(dim=0)) > 1


# ---------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("decode", ["autoregressive", "parallel"])
def test_a_head_overfits_one_batch(tmp_path, decode):
    path = fitted(tmp_path / "fast.json", 3, 2, scale=30)
    assert_overfits_one_batch(FastHead, FastConfig(tokenizer=path, decode=decode), GIVEN)


def test_sampled_chunks_follow_both_modes(tmp_path):
    drawn = np.concatenate([chunks(TWO_MODES.action, 64, seed).flatten(0, 1) for seed in range(9)])
    fit(drawn, scale=10, vocabulary=60).save(tmp_path / "fast.json")
    config = FastConfig(tokenizer=tmp_path / "fast.json", temperature=1.0)
    assert_two_modes(FastHead, config, steps=400, learning_rate=2e-2)


# --------------------------------------------------------------------------------------- mistakes


def test_a_tokenizer_of_other_chunks_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"policy_head\.tokenizer: .*3 x 2 .*have 4 x 5"):
        make(tokenizer, Setup(tokens=1))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"policy_head\.tokenizer: .*joinery tokenizer fast"):
        make(tmp_path / "fast.json")
    auxiliary = '[[auxiliary]]\nname = "fast"\nlabel = "tokens"\ntokenizer = "fast.json"'
    with pytest.raises(DataError, match=r"^auxiliary/tokens\.tokenizer: "):
        build(tmp_path, 'name = "discrete"', more=auxiliary)


def test_action_tokens_that_do_not_divide_the_chunk_are_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"policy_head\.decode: .*action_tokens\.count = 1 or"):
        make(tokenizer, replace(GIVEN, tokens=50), decode="parallel")


def test_loss_without_actions_says_so(tokenizer):
    batch = replace(stand_in.batch(GIVEN), actions=None)
    with pytest.raises(ValueError, match=r"batch\.actions"):
        make(tokenizer).loss(context_of(GIVEN, windows(GIVEN)), batch, noise())
