"""Film strips: which steps they show, how images are shrunk, and how large the JPEGs are."""

from base64 import b64decode

import numpy as np
import pytest

from core.report.film_strips import (
    BLOCK,
    MAX_FRAMES,
    choose_steps,
    encode_still,
    make_strip,
    shrink,
)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_all_steps_are_shown_or_every_nth_and_the_last():
    assert choose_steps(MAX_FRAMES) == list(range(MAX_FRAMES))
    assert choose_steps(MAX_FRAMES + 2) == [*range(0, MAX_FRAMES + 2, 2), MAX_FRAMES + 1]


def test_images_are_averaged_over_blocks():
    frames = noise(2, 12, 9, 3)
    small = shrink(frames, 4)
    blocks = frames.reshape(2, 4, 3, 3, 3, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(small, np.floor(blocks + 0.5))
    assert shrink(frames, 12) is frames


def test_cameras_lie_side_by_side_at_whole_blocks():
    images = {"front": noise(3, 10, 12, 3), "wrist": noise(3, 20, 8, 3)}
    strip = make_strip(images, [0, 5, 9], 10.0, max_bytes=10**9)
    assert [camera["x"] for camera in strip.cameras] == [0, 2 * BLOCK]
    assert (strip.width, strip.height) == (3 * BLOCK, 3 * BLOCK)
    assert strip.steps == [0, 5, 9]


def test_frames_are_left_out_once_the_lowest_quality_is_too_large():
    strip = make_strip({"front": noise(9, 32, 32, 3)}, list(range(9)), 10.0, max_bytes=6_000)
    assert len(strip.steps) < 9
    assert (strip.steps[0], strip.steps[-1]) == (0, 8)


@pytest.mark.parametrize("max_bytes", [1_500, 2_500])
def test_a_still_takes_a_lower_quality_to_be_small(max_bytes):
    uri = encode_still(noise(32, 32, 3), max_bytes)
    assert len(b64decode(uri.partition(",")[2])) <= max_bytes
    assert len(uri) < len(encode_still(noise(32, 32, 3), 10**9))
