"""The run's folder belongs to one run at a time."""

from core.system.locks import locked
from tests.core.training.runs import train


def test_a_folder_in_which_a_run_trains_is_refused(recipe_file, tmp_path, capsys):
    folder = tmp_path / "run"
    with locked(folder):
        assert train(recipe_file, folder) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"{folder}: process " in shown
    assert "name another folder" in shown
    assert not (folder / "recipe.toml").exists()
    assert train(recipe_file, folder, "train.steps=1") == 0
    with locked(folder):
        assert train(recipe_file, folder, "train.steps=1", resume=True) == 1
