"""The main job's command line; training and evaluation have tests of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.run import main


def test_a_missing_recipe_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "a.toml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "a.toml") in line


def test_a_mistake_in_a_recipe_is_reported_before_fabric_is_imported(tmp_path: Path) -> None:
    recipe = tmp_path / "a.toml"
    recipe.write_text("[trian]\nsteps = 3\n")
    code = (
        "import sys; from core.run import main; "
        f"print(main([{str(recipe)!r}]), 'lightning_fabric' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "2 False\n"
    assert "did you mean 'train'" in process.stderr
