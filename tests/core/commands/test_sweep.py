"""The command: it lists what it would run, and says what failed."""

import json
import sys
from pathlib import Path

import pytest

from core.commands.sweep import main
from core.sweep import job, sweep as sweep_module
from tests.core.sweep.conftest import RECIPE


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose runs are those of a stand-in, in the current folder."""
    monkeypatch.setattr(job, "PROGRAM", "tests.core.sweep.stand_in")
    monkeypatch.setattr(sweep_module, "prepare", lambda recipe, console: None)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "base.toml"
    path.write_text(RECIPE)
    return path


def test_a_dry_run_lists_the_runs(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--grid", "policy_head.name=lstm,discrete", "--seeds", "2", "--dry-run"]
    assert main([str(recipe), *words, "--output", str(tmp_path / "sweep")]) == 0
    shown = capsys.readouterr().out
    assert 'policy_head={name = "discrete"}' in shown
    assert "4 runs; nothing is run, and nothing is written" in shown
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_counts_the_trials_of_a_study(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="needs optuna: pip install -e '.[optuna]'")
    words = ["--range", "train.learning_rate=1e-4:1e-2:log", "--method", "optuna", "--trials", "6"]
    assert main([str(recipe), *words, "--seeds", "2", "--dry-run"]) == 0
    assert "6 trials of each, whose values follow" in (shown := capsys.readouterr().out)
    assert "12 runs; nothing is run" in shown


def test_a_dry_run_asks_for_optuna(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = ["--range", "backbone.depth=1:4", "--method", "optuna"]
    assert main([str(recipe), *words, "--dry-run"]) == 2
    assert "optuna cannot be imported" in capsys.readouterr().err


def test_a_sweep_ends_with_a_table_and_its_failures(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rates.toml"
    file.write_text(
        'recipes = ["base.toml"]\nseeds = 1\n[grid]\n"train.learning_rate" = [1e-3, 0.5]\n'
    )
    assert main([str(file), "--jobs", "2", "--output", str(tmp_path / "sweep")]) == 1
    out, err = capsys.readouterr()
    assert "learning_rate=0.001, seed 0: finished" in out
    assert f"page: {tmp_path / 'sweep' / 'sweep.html'}" in out
    first, last = err.splitlines()
    assert first.startswith("error: learning_rate=0.5, seed 0: step 3: not finite: loss = nan (")
    assert "the same command tries these runs again" in last
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert len(content["variants"]) == 2
    assert main([str(file), "train.steps=2", "--output", str(tmp_path / "sweep")]) == 2
    assert "train.steps was 5, and is now 2" in capsys.readouterr().err


def test_mistakes_are_lines(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(recipe), "--grid", "policy_head.name=lstm,mpl", "--seeds", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "policy_head.name" in line
    assert line.endswith("(in mpl)")
    assert not Path("sweeps").exists(), "nothing is written"
    assert main([str(recipe), "--seeds", "0"]) == 2
    assert "seeds: expected" in capsys.readouterr().err
    assert main(["train.steps=3"]) == 2
    assert "name the file of a sweep, or a recipe" in capsys.readouterr().err
