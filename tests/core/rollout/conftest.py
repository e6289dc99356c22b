"""The toy environment installed, a policy trained in it for a few steps, and one that needs no training."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from core import run
from core.plugins import load_plugins
from core.recipe import Recipe, load_recipe
from core.rollout.contracts import Observation
from tests.toy_command import install_toy
from tests.toy_environment import CLOSED, COLOURS, OPEN, RADIUS, SIZE, SPEED, toy_info

RECIPE = """
[train]
steps = 4
batch_size = 8
warmup_steps = 2
validate_every = 2
checkpoint_every = 2
[data]
path = "toy.zarr"
window = 2
[action]
horizon = 3
[vision_encoder]
name = "timm_vit"
model = "test_vit"
image_size = 32
depth = 1
[text_encoder]
name = "sentencepiece"
width = 16
[backbone]
name = "transformer"
width = 16
depth = 1
heads = 2
[action_tokens]
name = "learned"
proprio = true
[policy_head]
name = "lstm"
hidden_size = 16
layers = 1
mlp = [16]
[environment]
name = "toy"
[demonstrations]
episodes = 3
"""
EVALUATE = """
[evaluate]
episodes = 3
lanes = 4
timeout = 60
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pristine_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy.toml, toy.zarr and the run `run`, not evaluated."""
    install_toy()
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.toml").write_text(RECIPE)
    assert run.main([str(folder / "toy.toml"), "--output", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def trained(pristine_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may write into; its recipe names the store of `pristine_run`."""
    return Path(shutil.copytree(pristine_run / "run", tmp_path / "run"))


@pytest.fixture
def load(trained: Path) -> Callable[..., Recipe]:
    """Load the trained run's recipe with an [evaluate] and overrides."""
    with (trained / "recipe.toml").open("a") as file:
        file.write(EVALUATE)
    return lambda *overrides: load_recipe(trained / "recipe.toml", overrides, load_plugins())


class Seer:
    """Acts like a policy that has learned the toy: goes to the disc that it is told, where it sees it."""

    def __init__(self, horizon: int = 2) -> None:
        self.info = toy_info()
        self.horizon = horizon
        self.batches: list[int] = []

    def step(
        self, observations: Sequence[Observation], instructions: Sequence[str], state: int | None
    ) -> tuple[np.ndarray, int]:
        self.batches.append(len(observations))
        chunks = [self._chunk(seen, told) for seen, told in zip(observations, instructions, strict=True)]
        return np.stack(chunks), (state or 0) + 1

    def _chunk(self, seen: Observation, told: str) -> np.ndarray:
        (colour,) = (rgb for name, rgb in COLOURS.items() if name in told)
        rows, columns = np.nonzero((seen.images["front"] == colour).all(axis=-1))
        if len(rows) == 0:
            return np.tile(np.float32([0, 0, OPEN]), (self.horizon, 1))
        goal, point, actions = (np.array([columns.mean(), rows.mean()]) + 0.5) / SIZE * 2 - 1, seen.proprio, []
        for _ in range(self.horizon):
            away = goal - point
            actions.append([*np.clip(away / SPEED, -1, 1), CLOSED if np.linalg.norm(away) < RADIUS / 2 else OPEN])
            point = point + SPEED * np.clip(away / SPEED, -1, 1)
        return np.array(actions, np.float32)


@pytest.fixture
def seer() -> Seer:
    return Seer()
