"""Fixtures of policies for the toy environment: one trained for a few steps, and a scripted one."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from core import run
from core.environments.environment import Observation
from core.episodes.normalization import Affine, Normalizer
from core.recipe.contents import Recipe
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
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
num_envs = 4
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
    """A folder with toy.toml, toy.zarr and the run `run`, which is trained but not evaluated."""
    install_toy()
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.toml").write_text(RECIPE)
    assert run.main([str(folder / "toy.toml"), "--output", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def trained(pristine_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change; its recipe names the store of `pristine_run`."""
    return Path(shutil.copytree(pristine_run / "run", tmp_path / "run"))


@pytest.fixture
def load(trained: Path) -> Callable[..., Recipe]:
    """A function that loads the trained run's recipe with [evaluate] and overrides."""
    with (trained / "recipe.toml").open("a") as file:
        file.write(EVALUATE)
    return lambda *overrides: load_recipe(trained / "recipe.toml", overrides, load_plugins())


# of one row: the seed of its last reset, and the steps since then
Memory = tuple[int, int]


class ScriptedActor:
    """An actor that solves the toy: it moves to the disc of the instruction, if the image shows it.

    camera: the one that it looks at.
    noise: standard deviation of its random errors, which depend on a row's seed and step.
    batch_sizes: the number of rows in each step.
    resets: of each reset, the number of steps before it and {row: seed}.
    forgotten: the rows whose memory was emptied before a step, in the order of the steps.
    """

    def __init__(self, horizon: int = 2, noise: float = 0.0) -> None:
        self.info = toy_info()
        dimensions = self.info.action.dim
        self.action_normalizer = Normalizer(
            "none", Affine((0.0,) * dimensions, (1.0,) * dimensions)
        )
        self.camera, self.horizon, self.noise = "front", horizon, noise
        self.batch_sizes: list[int] = []
        self.resets: list[tuple[int, dict[int, int]]] = []
        self.forgotten: list[list[int]] = []

    def start(self, rows: int) -> tuple[Memory | None, ...]:
        return (None,) * rows

    def reset(
        self, state: tuple[Memory | None, ...], seeds: Mapping[int, int]
    ) -> tuple[Memory | None, ...]:
        self.resets.append((len(self.batch_sizes), dict(seeds)))
        return tuple(
            (seeds[row], 0) if row in seeds else memory for row, memory in enumerate(state)
        )

    def forget(
        self, state: tuple[Memory | None, ...], rows: Sequence[int]
    ) -> tuple[Memory | None, ...]:
        self.forgotten.append(list(rows))
        return state

    def step(
        self,
        observations: Sequence[Observation],
        instructions: Sequence[str],
        state: tuple[Memory | None, ...],
    ) -> tuple[np.ndarray, tuple[Memory | None, ...]]:
        chunks, _, state = self.step_rows(observations, instructions, state)
        return chunks, state

    def step_rows(
        self,
        observations: Sequence[Observation],
        instructions: Sequence[str],
        state: tuple[Memory | None, ...],
    ) -> tuple[np.ndarray, dict[int, str], tuple[Memory | None, ...]]:
        self.batch_sizes.append(len(observations))
        rows = zip(observations, instructions, state, strict=True)
        chunks = [
            self.plan_chunk(observation, instruction) + self._error(memory)
            for observation, instruction, memory in rows
        ]
        state = tuple(memory and (memory[0], memory[1] + 1) for memory in state)
        return np.stack(chunks), {}, state

    def plan_chunk(self, observation: Observation, instruction: str) -> np.ndarray:
        """Return the actions (H A) towards the disc, or H actions that do nothing."""
        (colour,) = (rgb for name, rgb in COLOURS.items() if name in instruction)
        rows, columns = np.nonzero((observation.images[self.camera] == colour).all(axis=-1))
        if len(rows) == 0:
            return np.tile(np.float32([0, 0, OPEN]), (self.horizon, 1))
        disc = (np.array([columns.mean(), rows.mean()]) + 0.5) / SIZE * 2 - 1
        point, actions = observation.proprio, []
        for _ in range(self.horizon):
            away = disc - point
            gripper = CLOSED if np.linalg.norm(away) < RADIUS / 2 else OPEN
            move = np.clip(away / SPEED, -1, 1)
            actions.append([*move, gripper])
            point = point + SPEED * move
        return np.array(actions, np.float32)

    def _error(self, memory: Memory | None) -> np.ndarray:
        if not self.noise or memory is None:
            return np.zeros(3, np.float32)
        error = np.random.default_rng(memory).normal(0, self.noise, 2)
        return np.append(error, 0).astype(np.float32)


@pytest.fixture
def scripted_actor() -> ScriptedActor:
    return ScriptedActor()
