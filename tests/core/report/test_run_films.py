"""Recorded attempts as film strips: where frames lie, what is left out, which are shown."""

from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from simplejpeg import decode_jpeg

from core.report.film_strips import BLOCK, MAX_FRAMES, MAX_SIDE, choose_steps
from core.report.run_films import RolloutFilm, films_by_task, make_film
from core.report.run_rollouts import Rollout


def rollout(length: int, sizes: dict[str, tuple[int, int]], noise: bool = False) -> Rollout:
    random, steps = np.random.default_rng(length), choose_steps(length)
    images = {
        name: random.integers(0, 256, (length, *size, 3) if noise else (length, 1, 1, 3), np.uint8)[
            steps
        ]
        * np.ones((1, *size, 1), np.uint8)
        for name, size in sizes.items()
    }
    return Rollout("task", "do it", 5, True, steps, images, np.linspace(0, 1, length))


def frame_image(film: RolloutFilm, index: int, camera: int) -> np.ndarray:
    """What the player draws: one camera of one frame."""
    strip = decode_jpeg(b64decode(film.strip.image.partition(",")[2]))
    place = film.strip.cameras[camera]
    top = index // film.strip.columns * film.strip.height
    left = index % film.strip.columns * film.strip.width + int(place["x"])
    return strip[top : top + int(place["height"]), left : left + int(place["width"])]


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 40),
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3),
    index=st.integers(0, 39),
)
def test_every_camera_of_every_frame_lies_where_the_layout_says(length, sizes, index):
    source = rollout(length, {f"c{i}": size for i, size in enumerate(sizes)})
    film = make_film(source, max_bytes=10**9)
    for number, frames in enumerate(source.images.values()):
        shown = frame_image(film, index % length, number).astype(int)
        assert shown.shape == frames.shape[1:]
        assert abs(shown - frames[index % length]).max() <= 6
    assert [film.strip.width % BLOCK, film.strip.height % BLOCK] == [0, 0]


def test_a_long_attempt_keeps_its_last_step():
    film = make_film(rollout(3 * MAX_FRAMES + 1, {"c": (8, 8)}), max_bytes=10**9)
    assert len(film.strip.steps) <= MAX_FRAMES + 1
    assert (film.strip.steps[0], film.strip.steps[-1]) == (0, 3 * MAX_FRAMES)
    assert film.gripper[-1] == 1
    assert len(film.gripper) == len(film.strip.steps)


def test_a_film_without_a_gripper_shows_none():
    film = make_film(replace(rollout(3, {"c": (8, 8)}), gripper=None), max_bytes=10**9)
    assert film.gripper is None
    assert film.layout["gripper"] is None
    assert len(film.strip.steps) == 3


def test_large_frames_are_shrunk():
    film = make_film(rollout(3, {"c": (3 * MAX_SIDE, 2 * MAX_SIDE)}), max_bytes=10**9)
    assert (film.strip.cameras[0]["height"], film.strip.cameras[0]["width"]) == (
        MAX_SIDE,
        MAX_SIDE * 2 // 3,
    )


@pytest.mark.parametrize("max_bytes", [4_000, 20_000])
def test_noise_fits_the_budget(max_bytes):
    film = make_film(rollout(100, {"c": (32, 32)}, noise=True), max_bytes=max_bytes)
    assert len(b64decode(film.strip.image.partition(",")[2])) <= max_bytes
    assert film.strip.steps[-1] == 99


def test_evaluated_tasks_come_first_each_with_a_success_and_a_failure(run):
    films = films_by_task(run, ["lift_green", "fly"])
    assert [film.task for film in films] == ["lift_green", "lift_red"]
    for film in films:
        assert film.success is not None
        assert film.success.success
        assert film.failure is None or not film.failure.success
