"""A run's recorded attempts: films, arrays of earlier versions, and how damage is named."""

import re
from pathlib import Path

import numpy as np
import pytest

from core.episodes.episode import Camera
from core.errors import DataError
from core.evaluation.film_files import FilmEncoder, FilmFacts, place_cameras, save_film
from core.report.film_strips import MAX_FRAMES
from core.report.run_films import films_by_task
from core.report.run_rollouts import read_rollout, rollout_files


def write_film(path: Path, task: str, frames: int, gripper: tuple[float, ...] | None) -> Path:
    """Write a film of a success that turns from black to white."""
    places = place_cameras({"top": Camera(48, 64), "wrist": Camera(31, 17)})
    encoder = FilmEncoder(path.parent, places)
    for grey in np.linspace(0, 255, frames):
        encoder.add(
            {
                "top": np.full((48, 64, 3), grey, np.uint8),
                "wrist": np.full((31, 17, 3), 255 - grey, np.uint8),
            }
        )
    facts = FilmFacts(task, f"do {task}", 7, True, places, frames, gripper)
    save_film(path, encoder.finish(), facts)
    encoder.close()
    return path


def test_a_film_is_read_at_the_steps_that_are_shown(tmp_path):
    length = 2 * MAX_FRAMES + 1
    gripper = tuple(np.linspace(0, 1, length).tolist())
    rollout = read_rollout(write_film(tmp_path / "a.mp4", "fly", length, gripper))
    assert (rollout.task, rollout.instruction, rollout.seed) == ("fly", "do fly", 7)
    assert rollout.success
    assert (rollout.steps[0], rollout.steps[-1]) == (0, length - 1)
    assert len(rollout.steps) <= MAX_FRAMES + 1
    assert rollout.images["top"].shape == (len(rollout.steps), 48, 64, 3)
    assert rollout.images["wrist"].shape == (len(rollout.steps), 31, 17, 3)
    brightness = rollout.images["top"].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(brightness, 255 * np.array(rollout.steps) / (length - 1), atol=4)
    np.testing.assert_allclose(rollout.gripper, gripper)


def test_a_film_without_a_gripper_has_no_opening(tmp_path):
    assert read_rollout(write_film(tmp_path / "a.mp4", "fly", 1, None)).gripper is None


def test_a_run_of_two_versions_shows_both(run):
    """An evaluation that was interrupted before an update has arrays and films."""
    folder = run / "evaluation" / "rollouts"
    before = {path.name for path in rollout_files(run)}
    write_film(folder / "fly-success.mp4", "fly", 4, None)
    assert {path.name for path in rollout_files(run)} == {*before, "fly-success.mp4"}
    films = films_by_task(run, ["fly"])
    assert [film.task for film in films] == ["fly", "lift_green", "lift_red"]
    assert films[0].success.gripper is None
    assert films[0].failure is None


def test_frames_of_an_earlier_version_are_read(run):
    rollout = read_rollout(rollout_files(run)[0])
    shapes = {images.shape for images in rollout.images.values()}
    assert shapes == {(len(rollout.gripper), 64, 64, 3), (len(rollout.gripper), 48, 48, 3)}


def test_an_attempt_without_a_gripper_has_no_opening(run):
    path = run / "evaluation" / "rollouts" / "lift_red-success.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["gripper"] = np.full_like(arrays["gripper"], np.nan)
    np.savez(path, **arrays)
    rollout = read_rollout(path)
    assert rollout.gripper is None
    assert list(rollout.steps) == list(range(len(arrays["gripper"])))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_rollout_is_named(run, share):
    path = run / "evaluation" / "rollouts" / "lift_red-success.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_rollout(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gripper": None}, "'gripper': expected an array of 1 dimensions, it is missing"),
        ({"gripper": np.ones((12, 2))}, "'gripper': expected an array of 1 dimensions, got 2"),
        ({"gripper": np.ones(3)}, "expected camera/NAME"),
        ({"camera/static": np.zeros((12, 64, 64, 3))}, "expected camera/NAME"),
        ({"camera/static": np.zeros((12, 0, 64, 3), np.uint8)}, "expected camera/NAME"),
        ({"task": np.array({"a": 1}, dtype=object)}, "holds Python objects"),
        ({"task": np.array("\ud800")}, "damaged"),
        ({"seed": np.array("x")}, "'seed': expected"),
        ({"success": np.array("False")}, "'success': expected"),
        ({"gripper": np.zeros(12, complex)}, "'gripper': expected"),
    ],
)
def test_a_rollout_of_another_shape_is_refused(run, change, message):
    path = run / "evaluation" / "rollouts" / "lift_red-success.npz"
    with np.load(path) as file:
        arrays = dict(file) | change
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=re.escape(message)):
        read_rollout(path)
