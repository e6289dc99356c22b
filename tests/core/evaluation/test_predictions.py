from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from core.errors import ConfigError
from core.evaluation.evaluation import evaluate
from core.evaluation.predictions import write_predictions
from core.loading.view import StoreView
from core.rollout.actor import load_actor
from core.store.store import EpisodeStore


def test_predictions_stand_beside_true_actions(trained, load):
    recipe = load()
    evaluate(trained, recipe, Console(quiet=True))
    store = EpisodeStore(recipe.data.path)
    with np.load(trained / "evaluation" / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == ["x", "y", "gripper"]
        # one episode of each task is held out
        assert {arrays[f"{i}/task"].item() for i in range(2)} == {"reach_red", "reach_blue"}
        assert "2/task" not in arrays
        true, predicted = arrays["0/true"], arrays["0/predicted"]
    assert predicted.shape == (len(true), 3, 3)
    assert np.isfinite(predicted).all()
    assert any(
        np.array_equal(true, store.actions(episode, 0, int(store.length[episode])))
        for episode in range(len(store))
    )


def test_predictions_are_repeatable(trained, load, tmp_path):
    actor, recipe = load_actor(trained), load()
    for name in ("a.npz", "b.npz"):
        write_predictions(actor, recipe, tmp_path / name)
    with np.load(tmp_path / "a.npz") as first, np.load(tmp_path / "b.npz") as second:
        assert first.files == second.files
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])


def test_an_episode_is_read_in_pieces(trained, load, tmp_path, monkeypatch):
    """An episode may be longer than the memory is large; the pieces change no number."""
    actor, recipe, lengths = load_actor(trained), load(), []
    write_predictions(actor, recipe, tmp_path / "whole.npz")
    read_frames = StoreView.read_frames

    def note_length(view, name, episode, start, out):
        lengths.append(len(out))
        read_frames(view, name, episode, start, out)

    monkeypatch.setattr(StoreView, "read_frames", note_length)
    monkeypatch.setattr("core.evaluation.predictions.FRAMES_AT_ONCE", 3)
    write_predictions(actor, recipe, tmp_path / "pieces.npz")
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "pieces.npz") as pieces:
        for name in whole.files:
            np.testing.assert_array_equal(pieces[name], whole[name])
        assert sum(lengths) == len(whole["0/true"]) + len(whole["1/true"])
    assert max(lengths) == 3


def test_a_policy_of_other_data_is_refused(trained, load, tmp_path):
    actor = load_actor(trained)
    other = replace(actor, info=replace(actor.info, fps=20.0))
    with pytest.raises(ConfigError, match=r"^fps: the policy has 20.0, store .*toy.zarr 10.0"):
        write_predictions(other, load(), tmp_path / "predictions.npz")
    assert not (tmp_path / "predictions.npz").exists()
