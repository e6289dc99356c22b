"""The files of a run's folder: what is read from them, and how damage is named."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from core.errors import DataError
from core.report.run_files import read_predictions, read_run
from core.report.run_rollouts import rollout_files
from tests.core.report.factories import write_evaluation


def test_a_whole_run_is_read(run):
    record = read_run(run)
    assert record.name == "kosmos_lstm"
    assert record.settings["train"]["seed"] == 7
    assert record.metrics is not None
    assert record.evaluation is not None
    predictions = read_predictions(run)
    assert [episode.task for episode in predictions] == ["lift_red", "lift_green"]
    assert predictions[0].true.shape == (24, 7)
    assert predictions[0].predicted.shape == (24, 5, 7)


@pytest.mark.parametrize("place", ["elsewhere", "run/again", "run/evaluation"])
def test_the_folder_of_an_evaluation_is_read_like_a_run(run, tmp_path, place):
    folder = tmp_path / place.replace("run", run.name)
    if not folder.exists():
        shutil.copytree(run / "evaluation", folder)
    record, whole = read_run(folder), read_run(run)
    assert record.evaluation == whole.evaluation
    assert record.results == folder
    assert len(rollout_files(folder)) == len(rollout_files(run))
    assert len(read_predictions(folder)) == 2
    inside = place != "elsewhere"
    assert (record.recipe is not None, record.metrics is not None) == (inside, inside)
    if inside:  # the recipe above is that of the evaluation's run no longer
        (run / "recipe.toml").write_text("[train]\n", encoding="utf-8")
        assert read_run(folder).recipe is None


def test_an_evaluation_elsewhere_knows_the_components_of_its_run(run, tmp_path):
    evaluation = read_run(run).evaluation
    policy = {**evaluation.policy, "components": {"policy_head": "lstm of joinery 0.1.0"}}
    write_evaluation(run, replace(evaluation, policy=policy))
    folder = run.joinpath("evaluation").rename(tmp_path / "elsewhere")
    assert read_run(folder).components == {"policy_head": "lstm of joinery 0.1.0"}


def test_a_folder_that_is_neither_run_nor_evaluation_is_named(tmp_path):
    with pytest.raises(DataError, match="no run here, and no evaluation"):
        read_run(tmp_path)


def test_missing_files_are_none(run):
    (run / "recipe.toml").unlink()
    (run / "evaluation" / "results.json").unlink()
    (run / "evaluation" / "predictions.npz").unlink()
    record = read_run(run)
    assert (record.recipe, record.settings, record.evaluation) == (None, {}, None)
    assert read_predictions(run) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0/true": np.zeros((5, 7))}, "episode 0"),
        ({"0/predicted": np.zeros((24, 0, 7))}, "episode 0"),
        ({"0/true": np.zeros((0, 7)), "0/predicted": np.zeros((0, 5, 7))}, "episode 0"),
        ({"0/true": np.full((24, 7), "a")}, "'0/true': expected"),
    ],
)
def test_predictions_that_do_not_fit_their_episode_are_refused(run, change, message):
    path = run / "evaluation" / "predictions.npz"
    with np.load(path) as file:
        np.savez(path, **(dict(file) | change))
    with pytest.raises(DataError, match=message):
        read_predictions(run)
