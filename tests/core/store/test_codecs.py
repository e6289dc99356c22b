import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from core.episodes.episode import Feature
from core.errors import DataError
from core.store.codecs import (
    Codec,
    Jpeg,
    Zstd,
    choose_codec,
    feature_codec,
    make_codec,
    split_blocks,
    try_codecs,
)
from tests.factories import MOVING, STILL, make_episode, make_info


@pytest.fixture
def frames() -> dict[str, np.ndarray]:
    return dict(make_episode(0, make_info(), length=13).images)


def decode(codec: Codec, block: bytes, like: np.ndarray) -> np.ndarray:
    """Decode one whole block."""
    out = np.zeros_like(like)
    codec.decode(block, [0, len(block)], len(like), 0, out)
    return out


@given(st.data())
def test_any_frames_of_several_blocks_are_decoded_at_once(data: st.DataObject) -> None:
    """The blocks lie in a stream, behind others."""
    images = make_episode(0, make_info(), length=21).images
    codec = data.draw(st.sampled_from([Zstd(), Zstd(block_size=3), Jpeg(), Jpeg(chroma="4:2:0")]))
    frames = images[STILL if codec.name == "zstd" else MOVING]
    encoded = [codec.encode(block) for block in split_blocks(frames, codec.block_size)]
    start = data.draw(st.integers(0, len(frames) - 1))
    stop = data.draw(st.integers(start + 1, len(frames)))
    low, high = start // codec.block_size, -(-stop // codec.block_size)
    bounds = np.cumsum([1000, *map(len, encoded)]).tolist()[low : high + 1]
    pairs = zip(encoded, split_blocks(frames, codec.block_size), strict=True)
    alone = np.concatenate([decode(codec, block, original) for block, original in pairs])
    out = np.zeros((stop - start, *frames.shape[1:]), np.uint8)
    first = low * codec.block_size
    count = min(high * codec.block_size, len(frames)) - first
    with patch("core.store.codecs.MAX_SCRATCH", data.draw(st.sampled_from([0, 2**25]))):
        codec.decode(b"".join(encoded[low:high]), bounds, count, start - first, out)
    np.testing.assert_array_equal(out, alone[start:stop])
    if codec.name == "zstd":
        np.testing.assert_array_equal(out, frames[start:stop])


def test_jpeg_is_close_in_rgb_and_another_decoder_agrees(frames: dict[str, np.ndarray]) -> None:
    frame = frames[MOVING][:1]
    data = Jpeg().encode(frame)
    out = decode(Jpeg(), data, frame)
    error = out.astype(float) - frame
    assert (
        10 * np.log10(255**2 / np.square(error).mean()) > 35
    )  # dB: a swap of channels or 4:2:0 would be far below
    import io

    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(np.asarray(image).astype(int) - out[0]).max() <= 2


def test_a_still_camera_is_lossless(frames: dict[str, np.ndarray]) -> None:
    costs = try_codecs(frames[STILL])
    assert choose_codec(costs) == Zstd()
    assert costs[Zstd()].error == 0
    assert (
        costs[Zstd()].size
        == sum(len(Zstd().encode(block)) for block in split_blocks(frames[STILL], 8)) / 13
    )


@pytest.mark.parametrize(("channels", "chosen"), [(1, Jpeg(chroma="4:2:0")), (3, Jpeg())])
def test_noise_is_jpeg_and_keeps_its_colours_where_it_has_some(channels: int, chosen: Jpeg) -> None:
    noise = np.random.default_rng(0).normal(0, 20, (9, 48, 48, channels))
    frames = np.clip(128 + noise + np.zeros(3), 0, 255).astype(np.uint8)
    costs = try_codecs(frames)
    assert choose_codec(costs) == chosen
    decoded = np.concatenate(
        [decode(chosen, chosen.encode(frame[None]), frame[None]) for frame in frames]
    )
    assert costs[chosen].error == pytest.approx(
        np.square(decoded - frames.astype(float)).mean(), rel=1e-5
    )
    assert costs[Jpeg(chroma="4:2:0")].size < costs[Jpeg()].size < costs[Zstd()].size


def test_frames_that_are_no_contiguous_array_are_encoded(frames: dict[str, np.ndarray]) -> None:
    flipped = frames[STILL][:, ::-1, ::-1]
    np.testing.assert_array_equal(
        decode(Zstd(), Zstd().encode(flipped[:8]), flipped[:8]), flipped[:8]
    )
    assert Jpeg().encode(flipped[:1]) == Jpeg().encode(flipped[:1].copy())


def test_codecs_are_made_by_name() -> None:
    assert make_codec("jpeg", 1, 80, None) == Jpeg(
        quality=80
    )  # as stores had it before there was a choice
    assert make_codec("jpeg", 1, 95, "4:2:0") == Jpeg(chroma="4:2:0")
    assert make_codec("zstd", 4, None, None) == Zstd(block_size=4)
    with pytest.raises(DataError, match=r"'webp' is unknown.*jpeg, zstd"):
        make_codec("webp", 1, None, None)


def test_a_long_run_is_not_held_twice() -> None:
    frames = np.zeros((4096, 64, 64, 3), np.uint8)
    codec = Zstd()
    encoded = [codec.encode(block) for block in split_blocks(frames, codec.block_size)]
    out = np.ones_like(frames[1:])
    tracemalloc.start()
    codec.decode(
        b"".join(encoded), np.cumsum([0, *map(len, encoded)]).tolist(), len(frames), 1, out
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not out.any()
    assert peak < frames.nbytes / 4


@pytest.mark.parametrize(
    ("shape", "frames"),
    [((), 256), ((6,), 256), ((128, 3), 21), ((48, 64, 1), 8), ((480, 640, 1), 8)],
)
def test_blocks_of_features_have_a_sensible_size(shape: tuple[int, ...], frames: int) -> None:
    assert feature_codec(Feature(shape, "float32", "other")).block_size == frames
