"""FAST's tokenizer against an independent statement of the published one, and its command."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.fft import dct, idct

from core import DataError
from plugins.heads.tokens.fast_tokenizer import FastTokenizer, fill_masked, fit, quantize

tokenizers = pytest.importorskip("tokenizers", reason="the extra 'fast' is not installed")

ROOT = Path(__file__).parents[2]


def smooth_chunks(count=400, horizon=8, dim=3, seed=0):
    """Random walks within [-1, 1], and a gripper that switches once."""
    draw = np.random.default_rng(seed)
    walks = draw.normal(0, 0.15, (count, horizon, dim)).cumsum(axis=1)
    walks[..., -1] = np.arange(horizon) > draw.integers(0, horizon + 1, (count, 1))
    return walks.clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return fit(smooth_chunks(), scale=10, vocabulary=200)


# ------------------------------------------------------- the published algorithm, in plain numpy


def cosine_transform(chunk):
    """DCT-II of each column of a chunk (H A), with the orthonormal scaling, in float64."""
    horizon = len(chunk)
    steps, frequencies = np.arange(horizon), np.arange(horizon)[:, None]
    waves = np.cos(np.pi * (steps + 0.5) * frequencies / horizon)
    scale = np.where(frequencies == 0, 1, 2**0.5) / horizon**0.5
    return scale * waves @ chunk.astype(np.float64)


def published_texts(chunks, scale, least):
    rounded = [np.around(cosine_transform(chunk) * scale).flatten() for chunk in chunks]
    return ["".join(chr(int(max(c - least, 0))) for c in row) for row in rounded]


def published_fit(chunks, scale, vocabulary):
    """The merges of the published fit; its alphabet is one character for each coefficient."""
    rounded = np.around(np.stack([cosine_transform(c) for c in chunks]) * scale)
    least, most = int(rounded.min()), int(rounded.max())
    byte_level = tokenizers.ByteLevelBPETokenizer()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=[chr(i) for i in range(most - least + 1)],
        max_token_length=10000,
    )
    texts = published_texts(chunks, scale, least)
    byte_level._tokenizer.train_from_iterator(texts, trainer=trainer)
    return byte_level


def merges_of(bpe):
    return json.loads(bpe.to_str())["model"]["merges"]


def test_coefficients_are_the_cosine_transform_frequency_by_frequency():
    chunks = smooth_chunks(20)
    by_hand = np.stack([np.around(cosine_transform(c) * 10).flatten() for c in chunks])
    by_scipy = np.around(dct(chunks.astype(np.float64), axis=1, norm="ortho") * 10)
    np.testing.assert_array_equal(quantize(chunks, 10), by_hand)
    np.testing.assert_array_equal(by_hand, by_scipy.reshape(20, -1))


def test_tokens_are_those_of_the_published_encoding(fitted):
    """With the merges of our fit, published preparation and published tokenizer class."""
    model = json.loads(fitted.bpe.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    published = tokenizers.ByteLevelBPETokenizer(vocab=model["vocab"], merges=merges)
    chunks = smooth_chunks(100)
    texts = published_texts(chunks, 10, fitted.low)
    expected = [encoding.ids for encoding in published.encode_batch(texts)]
    assert fitted.encode(chunks) == expected
    assert len({len(ids) for ids in expected}) > 3
    decoded = np.stack(
        [
            np.array([ord(c) for c in published.decode(ids)]).reshape(8, 3) + fitted.low
            for ids in expected
        ]
    )
    chunks = idct(decoded / 10, axis=1, norm="ortho")
    np.testing.assert_allclose(fitted.decode(expected), chunks, atol=1e-6)


def test_merges_are_those_of_the_published_fit(fitted):
    published = merges_of(published_fit(smooth_chunks(), 10, 300)._tokenizer)
    ours = merges_of(fitted.bpe)
    count = min(len(ours), len(published))
    assert count > 50
    assert ours[:count] == published[:count]


# ------------------------------------------------------------------------------- there and back


def test_chunks_come_back_within_the_rounding(fitted):
    chunks = smooth_chunks(50)
    error = np.abs(fitted.decode(fitted.encode(chunks)) - chunks)
    # each coefficient is off by 0.05 at most, so the length of a dimension's error is, too
    assert np.sqrt((error**2).sum(axis=1)).max() <= 0.05 * 8**0.5 + 1e-6
    finer = fit(chunks, scale=100, vocabulary=1000)
    assert np.abs(finer.decode(finer.encode(chunks)) - chunks).max() < 0.015


def test_new_chunks_beyond_the_fitted_range_are_clipped(fitted):
    (ids,) = fitted.encode(np.full((1, 8, 3), 50, np.float32))
    (chunk,) = fitted.decode([ids])
    np.testing.assert_allclose(chunk, fitted.high / 10 / 8**0.5, atol=1e-6)


def test_any_tokens_give_a_chunk(fitted):
    draw = np.random.default_rng(0)
    sequences = [draw.integers(0, fitted.size, draw.integers(0, 60)).tolist() for _ in range(200)]
    chunks = fitted.decode(sequences)
    assert chunks.shape == (200, 8, 3)
    assert np.abs(chunks).max() <= max(-fitted.low, fitted.high) / 10 * 8**0.5
    assert not fitted.decode([[]]).any()


def test_missing_coefficients_are_those_of_high_frequencies(fitted):
    """Of a constant chunk, the first three coefficients are all that is not zero."""
    (ids,) = fitted.encode(np.tile(np.float32([0.5, -0.25, 1.0]), (1, 8, 1)))
    np.testing.assert_array_equal(*fitted.decode([ids, ids[:3]]))


def test_two_byte_characters_are_whole_or_zero():
    wide = fit(smooth_chunks(), scale=100, vocabulary=700)
    assert wide.high - wide.low > 2**7
    ids = wide.encode(smooth_chunks(30))
    assert np.abs(wide.decode(ids) - smooth_chunks(30)).max() < 0.015
    (chunk,) = wide.decode([ids[0][::-1]])
    assert np.isfinite(chunk).all()


def test_masked_actions_repeat_the_last_one_or_are_zero():
    actions = np.array([[[1, 2, 3], [4, 5, 6], [7, np.nan, 9]]], np.float32)
    mask = np.array([[[1, 0, 1], [1, 0, 0], [0, 0, 0]]], bool)
    np.testing.assert_array_equal(fill_masked(actions, mask), [[[1, 0, 3], [4, 0, 3], [4, 0, 3]]])


# --------------------------------------------------------------------------------------- the file


def test_a_file_holds_the_whole_tokenizer(fitted, tmp_path):
    path = tmp_path / "fast.json"
    fitted.save(path)
    loaded = FastTokenizer.load(path)
    chunks = smooth_chunks(20, seed=1)
    assert loaded.encode(chunks) == fitted.encode(chunks)
    assert (loaded.low, loaded.high, loaded.longest, loaded.size) == (
        fitted.low,
        fitted.high,
        fitted.longest,
        fitted.size,
    )
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_the_same_chunks_give_the_same_file(tmp_path):
    for name in ("one", "two"):
        fit(smooth_chunks(), scale=10, vocabulary=200).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": "other"}', "\x00"])
def test_a_file_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "fast.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"fast\.json.*joinery tokenizer fast"):
        FastTokenizer.load(path)


def test_a_damaged_encoding_is_named(fitted, tmp_path):
    path = tmp_path / "fast.json"
    fitted.save(path)
    plain = json.loads(path.read_text())
    plain["bpe"]["model"]["type"] = "none such"
    path.write_text(json.dumps(plain))
    with pytest.raises(DataError, match=r"fast\.json"):
        FastTokenizer.load(path)


def test_a_vocabulary_that_is_too_small_says_what_would_do():
    with pytest.raises(DataError, match=r"--vocabulary (\d+) or more") as caught:
        fit(smooth_chunks(), scale=10, vocabulary=5)
    enough = int(str(caught.value).split("--vocabulary ")[1].split()[0])
    assert fit(smooth_chunks(), scale=10, vocabulary=enough).size == enough


def test_a_scale_that_is_too_large_is_refused():
    with pytest.raises(DataError, match="smaller --scale"):
        fit(smooth_chunks(), scale=1e5, vocabulary=10_000)
