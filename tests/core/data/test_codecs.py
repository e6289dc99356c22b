import numpy as np
import pytest
from PIL import Image

from core.data.codecs import Jpeg, Zstd, choose_codec, encoded_sizes, groups, make_codec
from core.errors import DataError
from tests.factories import MOVING, STILL, make_episode, make_info


@pytest.fixture
def frames() -> dict[str, np.ndarray]:
    return dict(make_episode(0, make_info(), length=13).images)


@pytest.mark.parametrize(("first", "count"), [(0, 8), (0, 1), (3, 5), (7, 1)])
def test_zstd_returns_any_run_of_a_group_exactly(frames: dict[str, np.ndarray], first: int, count: int) -> None:
    group = frames[MOVING][:8]
    out = np.zeros((count, *group.shape[1:]), np.uint8)
    Zstd().decode(Zstd().encode(group), 8, first, out)
    np.testing.assert_array_equal(out, group[first : first + count])


def test_jpeg_is_close_in_rgb_and_another_decoder_agrees(frames: dict[str, np.ndarray]) -> None:
    frame = frames[MOVING][:1]
    data = Jpeg().encode(frame)
    out = np.zeros_like(frame)
    Jpeg().decode(data, 1, 0, out)
    error = out.astype(float) - frame
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 35  # dB: a swap of channels or 4:2:0 would be far below
    import io

    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(np.asarray(image).astype(int) - out[0]).max() <= 2


def test_choice_is_the_smaller(frames: dict[str, np.ndarray]) -> None:
    for name, expected in ((STILL, "zstd"), (MOVING, "jpeg")):
        sizes = {c.name: sum(len(c.encode(g)) for g in groups(frames[name], c.group)) for c in (Zstd(), Jpeg())}
        assert choose_codec(encoded_sizes(frames[name])).name == min(sizes, key=lambda key: sizes[key]) == expected


def test_frames_that_are_no_contiguous_array_are_encoded(frames: dict[str, np.ndarray]) -> None:
    flipped = frames[STILL][:, ::-1, ::-1]
    out = np.zeros(flipped[:8].shape, np.uint8)
    Zstd().decode(Zstd().encode(flipped[:8]), 8, 0, out)
    np.testing.assert_array_equal(out, flipped[:8])
    assert Jpeg().encode(flipped[:1]) == Jpeg().encode(flipped[:1].copy())


def test_codecs_are_made_by_name() -> None:
    assert make_codec("jpeg", 1, 80) == Jpeg(quality=80)
    assert make_codec("zstd", 4, None) == Zstd(group=4)
    with pytest.raises(DataError, match=r"'webp' is unknown.*jpeg, zstd"):
        make_codec("webp", 1, None)
