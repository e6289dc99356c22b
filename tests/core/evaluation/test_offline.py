"""Without an environment, a policy's predictions are compared with held-out episodes."""

import json
import shutil

import numpy as np
import pytest

from core import run
from core.commands import evaluate as evaluate_command
from core.errors import DataError
from core.evaluation.predictions import write_predictions
from core.report.run_held_out import held_out_table, shown_steps
from core.report.run_report import write_report
from core.rollout.actor import Actor, load_actor
from tests.toy_policy import RECIPE


def test_errors_are_those_of_a_plain_loop(trained, load, tmp_path):
    errors = write_predictions(load_actor(trained), load(), tmp_path / "predictions.npz")
    distances = [[[] for _ in range(3)] for _ in range(3)]  # by step and dimension
    actions = []
    with np.load(tmp_path / "predictions.npz") as arrays:
        for number in range(2):
            true, predicted = arrays[f"{number}/true"], arrays[f"{number}/predicted"]
            actions.append(true)
            for t, chunk in enumerate(predicted):
                for step in range(min(3, len(true) - t)):
                    for d in range(3):
                        distance = abs(float(chunk[step, d]) - float(true[t + step, d]))
                        distances[step][d].append(distance)
    expected = [[np.mean(cell) for cell in row] for row in distances]
    np.testing.assert_allclose(errors.errors, expected, rtol=1e-6)
    true = np.concatenate(actions).astype(np.float64)
    np.testing.assert_allclose(errors.constant, np.abs(true - np.median(true, axis=0)).mean(axis=0))
    assert (errors.episodes, errors.frames) == (2, len(true))


def test_every_frame_comes_with_the_recorded_action_before_it(trained, load, tmp_path, monkeypatch):
    told, step = [], Actor.step

    def recording(actor, observations, instructions, state):
        told.append(observations[0].past_action)
        return step(actor, observations, instructions, state)

    monkeypatch.setattr(Actor, "step", recording)
    write_predictions(load_actor(trained), load(), tmp_path / "predictions.npz")
    with np.load(tmp_path / "predictions.npz") as arrays:
        before = [x for number in range(2) for x in (None, *arrays[f"{number}/true"][:-1])]
    assert len(told) == len(before)
    for received, expected in zip(told, before, strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.fixture
def recipe_file(pristine_run, tmp_path):
    """A recipe of recordings alone, beside its store."""
    shutil.copytree(pristine_run / "toy.zarr", tmp_path / "toy.zarr")
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE.partition("[environment]")[0])
    return path


def test_one_command_trains_and_compares(recipe_file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run.main([str(recipe_file), "--output", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "mean absolute errors on 2 held-out episodes" in shown
    assert (folder / "evaluation" / "predictions.npz").exists()
    table = held_out_table(folder / "evaluation")
    assert list(table.headings) == ["step 1", "step 2", "step 3", "constant"]
    assert [name for name, _ in table.rows] == ["x", "y", "gripper"]
    page = (folder / "report.html").read_text()
    assert "2 held-out episodes" in page
    assert "There is no environment to act in" in page
    assert "Compared with recordings alone" in page
    assert "Not evaluated yet" not in page
    for _, cells in table.rows:
        assert all(f'<td class="number">{cell}</td>' in page for cell in cells)

    assert evaluate_command.main([str(folder), "--output", str(tmp_path / "again")]) == 0
    assert held_out_table(tmp_path / "again") == table


def test_nothing_held_out_is_nothing_compared(recipe_file, tmp_path, capsys):
    folder = tmp_path / "run"
    overrides = ["data.validation_episodes=0", "--output", str(folder)]
    assert run.main([str(recipe_file), *overrides]) == 0
    shown = capsys.readouterr().out
    assert "validation: none of the 6 episodes is held out" in shown
    assert "mean absolute errors" not in shown
    assert "validation error" not in shown
    assert not (folder / "evaluation").exists()


def test_a_damaged_file_is_an_error_in_one_line(tmp_path):
    assert held_out_table(tmp_path) is None
    for content in ("", "[]", json.dumps({"names": ["x"]}), "{" * 10_000):
        (tmp_path / "held_out.json").write_text(content)
        with pytest.raises(DataError, match=r"held_out.json: damaged .*; evaluate the run again"):
            held_out_table(tmp_path)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "held_out.json").rename(tmp_path / "evaluation" / "held_out.json")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="damaged"):
        write_report(tmp_path)


@pytest.mark.parametrize(("horizon", "steps"), [(1, [0]), (3, [0, 1, 2]), (30, [0, 7, 15, 29])])
def test_a_few_steps_are_shown(horizon, steps):
    assert shown_steps(horizon) == steps
