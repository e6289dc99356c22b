"""Recordings become films while an evaluation goes on; memory holds few of their frames."""

import weakref
from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from core.environments.environment import Observation
from core.episodes.episode import Camera
from core.errors import DataError
from core.evaluation.film_files import read_film
from core.evaluation.film_recording import (
    MOST_WAITING,
    EncodingThread,
    FilmRecording,
    gripper_opening,
)
from core.rollout.results import STANDARD, EpisodeResult
from tests.toy_environment import CLOSED, OPEN, SIZE, toy_info

RESULT = EpisodeResult(STANDARD, "reach_red", 7, "touch it", True, 2)


@pytest.fixture
def thread():
    thread = EncodingThread()
    yield thread
    thread.close()


def observation(size: int = SIZE) -> Observation:
    return Observation({"front": np.full((size, size, 3), 90, np.uint8)}, np.zeros(2), {})


def record(recording: FilmRecording, *actions: list[list[float]]) -> None:
    recording.add_observation(observation())
    for applied in actions:
        recording.add_actions(np.array(applied))
        recording.add_observation(observation())


def test_a_film_holds_every_observation_and_the_gripper_before_each(tmp_path, thread):
    recording = FilmRecording(tmp_path, toy_info(), thread)
    record(recording, [[0, 0, OPEN], [0, 0, 0]], [[0, 0, CLOSED]])
    recording.save(tmp_path / "a.mp4", RESULT)
    film = read_film(tmp_path / "a.mp4", range)
    assert film.images["front"].shape == (3, SIZE, SIZE, 3)
    # the opening at the first observation is that of the first action
    assert film.facts.gripper == (1.0, 0.5, 0.0)
    assert (film.facts.task, film.facts.seed, film.facts.success) == ("reach_red", 7, True)


def test_an_attempt_without_an_action_is_a_film_of_one_frame(tmp_path, thread):
    recording = FilmRecording(tmp_path, toy_info(), thread)
    record(recording)
    recording.save(tmp_path / "a.mp4", RESULT)
    film = read_film(tmp_path / "a.mp4", range)
    assert (film.facts.frames, film.facts.gripper) == (1, None)


def test_without_a_gripper_there_is_no_opening(tmp_path, thread):
    info = replace(toy_info(), action=replace(toy_info().action, grippers=()))
    recording = FilmRecording(tmp_path, info, thread)
    record(recording, [[0, 0, OPEN]])
    recording.save(tmp_path / "a.mp4", RESULT)
    assert read_film(tmp_path / "a.mp4", range).facts.gripper is None


def test_a_grippers_opening_is_between_closed_and_open():
    commands = np.array([[0, 0, CLOSED], [0, 0, 0.0], [0, 0, OPEN], [0, 0, 9.0]])
    np.testing.assert_allclose(gripper_opening(commands, toy_info().action), [0, 0.5, 1, 1])


def test_few_frames_are_in_memory_however_many_are_recorded(tmp_path, thread):
    """16 attempts are recorded at once; a frame lives until it is encoded."""
    info = replace(toy_info(), cameras={"front": Camera(64, 64)})
    recordings = [FilmRecording(tmp_path, info, thread) for _ in range(16)]
    frames: list[weakref.ref[np.ndarray]] = []
    most = 0
    for _ in range(20):
        for recording in recordings:
            observed = observation(64)
            frames.append(weakref.ref(observed.images["front"]))
            recording.add_observation(observed)
            del observed
            most = max(most, sum(frame() is not None for frame in frames))
    assert most <= MOST_WAITING + 2  # the one that is encoded, and the one that is added
    for number, recording in enumerate(recordings):
        recording.save(tmp_path / f"{number}.mp4", RESULT)
    assert sum(frame() is not None for frame in frames) <= 1
    assert read_film(tmp_path / "15.mp4", range).facts.frames == 20


def test_the_actions_that_are_kept_are_copies(tmp_path, thread):
    """An action is a view of the chunks of all rows."""
    recording = FilmRecording(tmp_path, toy_info(), thread)
    chunks = np.ones((16, 8, 3))
    reference = weakref.ref(chunks)
    recording.add_actions(chunks[3][:2])
    del chunks
    assert reference() is None


def test_a_dropped_recording_takes_no_more_frames(tmp_path, thread):
    recording = FilmRecording(tmp_path, toy_info(), thread)
    record(recording, [[0, 0, OPEN]])
    recording.drop()
    record(recording, [[0, 0, OPEN]])
    thread.submit(lambda: None).result()
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_that_ends_waits_for_no_film(tmp_path):
    """After an error or Ctrl-C, frames that are not yet encoded are forgotten."""
    thread, may_go_on = EncodingThread(), Event()
    recording = FilmRecording(tmp_path / "rollouts", toy_info(), thread)
    thread.submit(may_go_on.wait)
    record(recording, [[0, 0, OPEN]])
    recording.drop()
    may_go_on.set()
    thread.close()
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_cannot_be_written_is_named(tmp_path, thread):
    (tmp_path / "rollouts").write_text("a file where a folder should be")
    recording = FilmRecording(tmp_path / "rollouts", toy_info(), thread)
    record(recording, [[0, 0, OPEN]])
    with pytest.raises(DataError, match=r"a.mp4: cannot write it \(File exists\); make room"):
        recording.save(tmp_path / "rollouts" / "a.mp4", RESULT)


def test_a_film_that_ffmpeg_refuses_is_named(tmp_path, thread, monkeypatch):
    monkeypatch.setattr("core.evaluation.film_files.OPTIONS", {"preset": "none such"})
    recording = FilmRecording(tmp_path, toy_info(), thread)
    record(recording, [[0, 0, OPEN]])
    with pytest.raises(DataError, match=r"a.mp4: FFmpeg cannot encode it .*install it again"):
        recording.save(tmp_path / "a.mp4", RESULT)
    assert list(tmp_path.iterdir()) == []
