import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from core.errors import DataError
from core.store.codecs import Codec, Jpeg, Zstd, choose_codec, groups, make_codec, try_codecs
from tests.factories import MOVING, STILL, make_episode, make_info


@pytest.fixture
def frames() -> dict[str, np.ndarray]:
    return dict(make_episode(0, make_info(), length=13).images)


def decode(codec: Codec, group: bytes, like: np.ndarray) -> np.ndarray:
    """One whole group."""
    out = np.zeros_like(like)
    codec.decode(group, [0, len(group)], len(like), 0, out)
    return out


@given(st.data())
def test_several_groups_are_decoded_at_once_from_any_place(data: st.DataObject) -> None:
    """As they lie in a stream, behind others."""
    images = make_episode(0, make_info(), length=21).images
    codec = data.draw(st.sampled_from([Zstd(), Zstd(group=3), Jpeg(), Jpeg(chroma="4:2:0")]))
    frames = images[STILL if codec.name == "zstd" else MOVING]
    chunks = [codec.encode(group) for group in groups(frames, codec.group)]
    start = data.draw(st.integers(0, len(frames) - 1))
    stop = data.draw(st.integers(start + 1, len(frames)))
    low, high = start // codec.group, -(-stop // codec.group)
    bounds = np.cumsum([1000, *map(len, chunks)]).tolist()[low : high + 1]
    pairs = zip(chunks, groups(frames, codec.group), strict=True)
    alone = np.concatenate([decode(codec, chunk, group) for chunk, group in pairs])
    out = np.zeros((stop - start, *frames.shape[1:]), np.uint8)
    first = low * codec.group
    count = min(high * codec.group, len(frames)) - first
    with patch("core.store.codecs.MOST_ROOM", data.draw(st.sampled_from([0, 2**25]))):
        codec.decode(b"".join(chunks[low:high]), bounds, count, start - first, out)
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
        == sum(len(Zstd().encode(group)) for group in groups(frames[STILL], 8)) / 13
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
    assert make_codec("zstd", 4, None, None) == Zstd(group=4)
    with pytest.raises(DataError, match=r"'webp' is unknown.*jpeg, zstd"):
        make_codec("webp", 1, None, None)


def test_a_long_run_is_not_held_twice() -> None:
    frames = np.zeros((4096, 64, 64, 3), np.uint8)
    codec = Zstd()
    chunks = [codec.encode(group) for group in groups(frames, codec.group)]
    out = np.ones_like(frames[1:])
    tracemalloc.start()
    codec.decode(b"".join(chunks), np.cumsum([0, *map(len, chunks)]).tolist(), len(frames), 1, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not out.any()
    assert peak < frames.nbytes / 4
