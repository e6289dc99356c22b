"""A recipe, and sweeps whose runs are those of a stand-in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from core.registry.catalogue import load_plugins
from core.report.sweep_results import SweepResults
from core.sweep import job, sweep as sweep_module
from core.sweep.config import check_sweep
from core.sweep.executors.local import LocalExecutor
from core.sweep.sweep import run_sweep
from tests.toy_policy import EVALUATE, RECIPE as TOY_RECIPE

RECIPE = """
[train]
steps = 5
learning_rate = 1e-3
[data]
path = "demonstrations.zarr"
[vision_encoder]
name = "film_cnn"
[text_encoder]
name = "sentencepiece"
[backbone]
name = "transformer"
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
hidden_size = 32
layers = 1
[environment]
name = "tabletop"
[evaluate]
episodes = 10
"""
QUIET = Console(quiet=True)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that stands for any: base.toml."""
    path = tmp_path / "base.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs of a sweep be those of the stand-in, which need no demonstrations."""
    monkeypatch.setattr(job, "PROGRAM", "tests.core.sweep.stand_in")
    monkeypatch.setattr(sweep_module, "prepare", lambda recipe, console: None)


@pytest.fixture
def run(recipe: Path, tmp_path: Path, stand_in: None) -> Callable[..., SweepResults]:
    """A function that runs a sweep into `sweep`: its keys are those of a sweep's file."""

    def run(console: Console = QUIET, jobs: int = 2, **values: Any) -> SweepResults:
        config = check_sweep({"recipes": [str(recipe)], **values}, "the sweep")
        return run_sweep(config, tmp_path / "sweep", LocalExecutor(jobs), load_plugins(), console)

    return run


@pytest.fixture
def toy_recipe(tmp_path: Path) -> Path:
    """A recipe of four steps in the toy environment."""
    path = tmp_path / "toy.toml"
    path.write_text(TOY_RECIPE + EVALUATE)
    return path
