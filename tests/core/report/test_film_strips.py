from base64 import b64decode

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from simplejpeg import decode_jpeg

from core.report.film_strips import BLOCK, LARGEST_SIDE, MOST_FRAMES, Film, film
from core.report.run_files import Rollout


def rollout(length: int, sizes: dict[str, tuple[int, int]], noise: bool = False) -> Rollout:
    random = np.random.default_rng(length)
    images = {
        name: random.integers(0, 256, (length, *size, 3) if noise else (length, 1, 1, 3), np.uint8)
        * np.ones((1, *size, 1), np.uint8)
        for name, size in sizes.items()
    }
    return Rollout("task", "do it", 5, True, images, np.linspace(0, 1, length))


def picture(made: Film, index: int, camera: int) -> np.ndarray:
    """What the player draws: one camera of one frame."""
    strip = decode_jpeg(b64decode(made.strip.picture.partition(",")[2]))
    place = made.strip.cameras[camera]
    top = index // made.strip.columns * made.strip.height
    left = index % made.strip.columns * made.strip.width + int(place["x"])
    return strip[top : top + int(place["height"]), left : left + int(place["width"])]


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 40),
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3),
    index=st.integers(0, 39),
)
def test_every_camera_of_every_frame_lies_where_the_layout_says(length, sizes, index):
    source = rollout(length, {f"c{i}": size for i, size in enumerate(sizes)})
    made = film(source, most_bytes=10**9)
    for number, frames in enumerate(source.images.values()):
        shown = picture(made, index % length, number).astype(int)
        assert shown.shape == frames.shape[1:]
        assert abs(shown - frames[index % length]).max() <= 6
    assert [made.strip.width % BLOCK, made.strip.height % BLOCK] == [0, 0]


def test_a_long_attempt_keeps_its_last_step():
    made = film(rollout(3 * MOST_FRAMES + 1, {"c": (8, 8)}), most_bytes=10**9)
    assert len(made.strip.steps) <= MOST_FRAMES + 1
    assert (made.strip.steps[0], made.strip.steps[-1]) == (0, 3 * MOST_FRAMES)
    assert made.gripper[-1] == 1
    assert len(made.gripper) == len(made.strip.steps)


def test_large_frames_are_shrunk():
    made = film(rollout(3, {"c": (3 * LARGEST_SIDE, 2 * LARGEST_SIDE)}), most_bytes=10**9)
    assert (made.strip.cameras[0]["height"], made.strip.cameras[0]["width"]) == (
        LARGEST_SIDE,
        LARGEST_SIDE * 2 // 3,
    )


@pytest.mark.parametrize("most", [4_000, 20_000])
def test_noise_fits_the_budget(most):
    made = film(rollout(100, {"c": (32, 32)}, noise=True), most_bytes=most)
    assert len(b64decode(made.strip.picture.partition(",")[2])) <= most
    assert made.strip.steps[-1] == 99
