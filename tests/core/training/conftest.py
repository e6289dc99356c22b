"""A recipe small enough to train in a second, on a store made for tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from core.recipe.contents import Recipe
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from tests.factories import make_store

RECIPE = """
[train]
steps = 6
batch_size = 4
warmup_steps = 2
validate_every = 3
checkpoint_every = 2
log_every = 2
joint_table_every = 3
[data]
path = "episodes.zarr"
window = 3
[action]
horizon = 2
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
dropout = 0.1
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
hidden_size = 16
layers = 1
mlp = [16]
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """tmp_path/small.toml beside its store."""
    make_store(tmp_path / "episodes.zarr")
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def load(recipe_file: Path) -> Callable[..., Recipe]:
    """Load the small recipe with overrides."""
    return lambda *overrides: load_recipe(recipe_file, overrides, load_plugins())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several runs share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
