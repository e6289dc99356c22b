from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from core.errors import DataError
from core.evaluation.evaluation import evaluate
from core.evaluation.film_files import read_film
from core.evaluation.recorder import RolloutRecorder
from core.rollout.plan import PlannedAttempt
from core.rollout.results import STANDARD, ChainResult, EpisodeResult
from tests.toy_environment import OPEN, SIZE, ToyConfig, ToyEnvironment, toy_info

PLAN = [
    PlannedAttempt(condition, "reach/red", seed, "touch it")
    for condition in (STANDARD, "blank_images")
    for seed in range(4)
]


def recorder(folder: Path, *results: EpisodeResult) -> RolloutRecorder:
    return RolloutRecorder(folder, PLAN, results, toy_info())


def result(
    seed: int, success: bool, condition: str = STANDARD, failure=None, task="reach/red"
) -> EpisodeResult:
    return EpisodeResult(condition, task, seed, "touch it", success, 2, failure)


def attempt(recorder: RolloutRecorder, *arguments, **options) -> None:
    """Let an attempt of three observations begin and end."""
    ended = result(*arguments, **options)
    planned = PlannedAttempt(ended.condition, ended.task, ended.seed, ended.instruction)
    if recording := recorder.begin(planned):
        environment = ToyEnvironment(ToyConfig())
        recording.add_observation(environment.observe())
        for _ in range(2):
            recording.add_actions(np.array([[0, 0, OPEN]]))
            recording.add_observation(environment.observe())
    recorder.save(ended)


def recorded_seeds(folder: Path) -> dict[str, int]:
    return {path.name: read_film(path, range).facts.seed for path in folder.iterdir()}


def test_the_first_of_the_plan_is_kept_whatever_ends_first(tmp_path):
    with recorder(tmp_path) as films:
        for seed in (2, 3, 1):
            attempt(films, seed, True)
        assert recorded_seeds(tmp_path) == {"reach_red-success.mp4": 1}
        attempt(films, 3, False)
        assert recorded_seeds(tmp_path) == {
            "reach_red-success.mp4": 1,
            "reach_red-failure.mp4": 3,
        }


def test_controls_chains_and_failed_environments_are_not_recorded(tmp_path):
    with recorder(tmp_path) as films:
        attempt(films, 0, True, "blank_images")
        attempt(films, 1, False, failure="died (SIGKILL)")
        films.save(ChainResult(0, ("reach/red",), ("touch it",), 1, 2))
    assert recorded_seeds(tmp_path) == {}


def test_attempts_that_cannot_come_first_are_not_recorded(tmp_path):
    with recorder(tmp_path, result(1, True), result(2, False)) as films:
        recordings = [films.begin(planned) for planned in PLAN]
        # seed 1 itself may still turn out to be an earlier failure than that of seed 2
        assert [recording is not None for recording in recordings] == [True] * 2 + [False] * 6
        attempt(films, 3, True)
    assert recorded_seeds(tmp_path) == {}


def test_a_recording_is_dropped_as_soon_as_it_cannot_come_first(tmp_path):
    with recorder(tmp_path) as films:
        later = [films.begin(planned) for planned in PLAN[2:4]]
        attempt(films, 0, True)
        assert [recording.is_dropped for recording in later] == [False, False]  # failures, maybe
        attempt(films, 1, False)
        assert [recording.is_dropped for recording in later] == [True, True]


def test_recordings_of_attempts_that_do_not_end_leave_no_file(tmp_path):
    films = recorder(tmp_path / "rollouts")
    with pytest.raises(KeyboardInterrupt), films:  # noqa: PT012 - what an interruption does
        recording = films.begin(PLAN[0])
        recording.add_observation(ToyEnvironment(ToyConfig()).observe())
        raise KeyboardInterrupt
    assert recording.is_dropped
    assert not any((tmp_path / "rollouts").glob("*"))


def test_a_film_replaces_the_arrays_of_an_earlier_version(tmp_path):
    for kind in ("success", "failure"):
        (tmp_path / f"reach_red-{kind}.npz").write_bytes(b"of an attempt that comes later")
    with recorder(tmp_path, result(2, True), result(3, False)) as films:
        attempt(films, 0, True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"reach_red-success.mp4", "reach_red-failure.npz"}


def test_tasks_of_similar_names_have_films_of_their_own(tmp_path):
    tasks = ["a/b", "a_b", "A B", "é" * 500, "è" * 500, "../../x"]
    plan = [PlannedAttempt(STANDARD, task, 0, "touch it") for task in tasks]
    with RolloutRecorder(tmp_path / "rollouts", plan, [], toy_info()) as films:
        for task in tasks:
            attempt(films, 0, True, task=task)
    films = [read_film(path, range) for path in (tmp_path / "rollouts").iterdir()]
    assert sorted(film.facts.task for film in films) == sorted(tasks)
    assert [path.name for path in tmp_path.iterdir()] == ["rollouts"]


def test_a_film_that_cannot_be_written_ends_the_evaluation(tmp_path):
    with recorder(tmp_path) as films:
        (tmp_path / "reach_red-success.mp4").mkdir()
        (tmp_path / "reach_red-success.mp4" / "file").touch()
        with pytest.raises(DataError, match=r"reach_red-success.mp4: cannot write it"):
            attempt(films, 0, True)


@pytest.mark.parametrize("replan_steps", [1, 3])
def test_films_hold_what_the_policy_saw(trained, load, replan_steps):
    recipe = load(f"evaluate.replan_steps={replan_steps}")
    evaluation = evaluate(trained, recipe, Console(quiet=True))
    folder = trained / "evaluation" / "rollouts"
    first = {(e.task, e.success): e for e in reversed(evaluation.episodes)}
    names = {
        f"{task}-{'success' if success else 'failure'}.mp4": episode
        for (task, success), episode in first.items()
    }
    assert {path.name for path in folder.iterdir()} == names.keys()
    for name, episode in names.items():
        film = read_film(folder / name, range)
        facts = film.facts
        assert facts.frames == -(-episode.steps // replan_steps) + 1
        assert film.images["front"].shape == (facts.frames, SIZE, SIZE, 3)
        assert len(facts.gripper) == facts.frames
        assert set(facts.gripper) <= {0.0, 1.0}
        for key in ("task", "instruction", "seed", "success"):
            assert getattr(facts, key) == getattr(episode, key)


def test_the_frames_of_a_film_are_the_moments_of_the_attempt(tmp_path):
    """The point moves from frame to frame; the film shows it where it was."""
    environment = ToyEnvironment(ToyConfig())
    environment.reset("reach_red", 0)
    with recorder(tmp_path) as films:
        recording = films.begin(PLAN[0])
        observations = [environment.observe()]
        recording.add_observation(observations[0])
        for _ in range(9):
            action = environment.expert()
            environment.step(action)
            recording.add_actions(action[None])
            observations.append(environment.observe())
            recording.add_observation(observations[-1])
        films.save(result(0, True))
    shown = read_film(tmp_path / "reach_red-success.mp4", range).images["front"]
    differences = np.array(
        [
            [abs(image.astype(int) - observation.images["front"]).mean() for image in shown]
            for observation in observations
        ]
    )
    assert (np.diag(differences) < 2).all()
    assert differences.argmin(axis=1).tolist()[:4] == [0, 1, 2, 3]  # the point moves
