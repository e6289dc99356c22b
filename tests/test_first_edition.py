"""What the first edition wrote opens as it did: a store, a recipe, a checkpoint, an evaluation.

tests/data/first_edition holds a run of four steps that version 0.1.0 trained and evaluated on
demonstrations that it recorded, and the actions that its policy then predicted on an episode.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

import core
from core.commands import compare, report, verify
from core.environments import Observation
from core.rollout.results import read_evaluation
from core.training.train import train

FOLDER = Path(__file__).parent / "data" / "first_edition"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "first_edition"))


def test_its_store_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(FOLDER / "store.zarr")]) == 0
    store = core.open_store(FOLDER / "store.zarr")
    assert [len(episode) for episode in store] == store.length.tolist()
    assert {task for task, _ in store.tasks} == {"push_red_left", "lift_red"}


def test_its_policy_acts_as_it_did() -> None:
    policy = core.load_policy(FOLDER / "run")
    episode = core.open_store(FOLDER / "store.zarr")[1]
    expected = np.load(FOLDER / "actions.npy")  # (frames H A)
    for frame, actions in enumerate(expected):
        images = {name: frames[frame] for name, frames in episode.images.items()}
        observation = Observation(images, episode.proprio[frame])
        np.testing.assert_allclose(
            policy.act(observation, episode.instruction), actions, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("recipe", ["small.toml", "run/recipe.toml"])
def test_its_recipes_say_what_they_said(recipe: str) -> None:
    loaded = core.load_recipe(FOLDER / recipe)
    assert loaded.train.steps == 4
    assert loaded.evaluate is not None
    assert (loaded.evaluate.num_envs, loaded.evaluate.replan_steps) == (2, 2)


def test_its_run_can_be_continued(folder: Path) -> None:
    """Here only to its end: that it is the same run is what is checked."""
    recipe = core.load_recipe(folder / "run" / "recipe.toml")
    assert train(recipe, folder / "run", resume=True) == 0


def test_its_evaluation_is_read_and_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = read_evaluation(folder / "run" / "evaluation" / "results.json")
    assert len(results.episodes) == 4
    assert report.main([str(folder / "run")]) == 0
    shutil.copytree(folder / "run", folder / "again")
    output = str(folder / "compared.html")
    assert compare.main([str(folder / "run"), str(folder / "again"), "--output", output]) == 0
