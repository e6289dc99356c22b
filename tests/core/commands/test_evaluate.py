"""The command: which overrides it takes; evaluation itself has tests of its own."""

from pathlib import Path

import pytest

from core.commands.evaluate import main


def test_what_was_trained_cannot_be_overridden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "train.steps=3", "evaluate.episodes=2", "backbone.model=/new"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: override 'train.steps=3': only evaluate.* and environment.* may change now",
        "error: override 'backbone.model=/new': only evaluate.* and environment.* may change now; "
        "say where a file has moved to by --moved OLD=NEW",
    ]


def test_a_folder_without_a_recipe_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) != 0
    assert str(tmp_path / "recipe.toml") in capsys.readouterr().err
