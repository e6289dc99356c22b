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


def test_a_run_goes_on_without_a_logger_that_is_gone(recipe_file, tmp_path):
    settings = ("train.steps=1", "train.warmup_steps=0", "train.loggers=[]")
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    written = tmp_path / "run" / "recipe.toml"
    written.write_text(written.read_text().replace("loggers = []", "loggers = ['gone']"))
    assert train(recipe_file, tmp_path / "run", *settings, resume=True) == 0
    assert "loggers = []" in written.read_text()
