"""The packages of tests/third_party, as if they were installed; and small policies to test."""

import importlib.util
import sys
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from core import ActionSpec, Batch
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import Catalogue, load_plugins

THIRD_PARTY = Path(__file__).parent / "third_party"
HEADS = {
    "regression": "RegressionHead",
    "flow": "FlowHead",
    "expert": "ExpertHead",
    "autoregressive": "AutoregressiveHead",
}
# {package: the name of its head in a recipe}
NAMES = {name: name for name in HEADS} | {"flow": "small_flow", "expert": "small_expert"}
CAMERAS = {"static": (3, 32, 32), "wrist": (3, 24, 24)}
INSTRUCTIONS = ("open the drawer", "push the puck to the goal and then come back", "lift")
PARTS = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "film_cnn"
image_size = 16
width = 24
channels = 8
[text_encoder]
name = "sentencepiece"
width = 24
[backbone]
name = "transformer"
width = 32
depth = 2
heads = 4
[action_tokens]
name = "learned"
[policy_head]
"""


def package(name: str) -> Path:
    return THIRD_PARTY / f"joinery-{name}-head"


@cache
def module_of(name: str) -> ModuleType:
    """Return the package's one module, imported as if it were installed."""
    return import_file(package(name) / f"{name}_head.py")


def import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the sources of its configuration are looked up
    spec.loader.exec_module(module)
    return module


def head_and_config(name: str) -> tuple[type, Any]:
    """Return the head's class, and its default configuration."""
    module = module_of(name)
    return getattr(module, HEADS[name]), getattr(module, f"{HEADS[name]}Config")()


@cache
def catalogue() -> Catalogue:
    """Return all components that there are when the packages are installed."""
    entries = [
        SimpleNamespace(
            name=f"{name}_head",
            value=f"{name}_head",
            dist=SimpleNamespace(name=f"joinery-{name}-head", version="0"),
            load=partial(module_of, name),
        )
        for name in HEADS
    ]
    entries.append(
        SimpleNamespace(
            name="watch",
            value="watch",
            dist=SimpleNamespace(name="joinery-watch", version="0.3.0"),
            load=partial(import_file, THIRD_PARTY / "joinery-watch" / "watch.py"),
        )
    )
    # Others look for entry points too: pydantic for plugins of its own.
    real_entry_points = metadata.entry_points
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            metadata,
            "entry_points",
            lambda group: entries if group == "joinery" else real_entry_points(group=group),
        )
        return load_plugins.__wrapped__()


def install(patch: pytest.MonkeyPatch) -> None:
    """Let every recipe find the packages' components."""
    with_packages = catalogue()
    for module in ("core.registry.catalogue", "core.training.run_folder", "core.rollout.actor"):
        patch.setattr(f"{module}.load_plugins", lambda: with_packages)


def build(
    folder: Path, head: str, *overrides: str, parts: str = PARTS, more: str = "", window: int = 1
) -> Policy:
    """Build a policy in evaluation mode.

    head: the lines of the recipe's section [policy_head]. more: further sections.
    """
    path = folder / "recipe.toml"
    path.write_text(f"{parts}{head}\n{more}", encoding="utf-8")
    recipe = load_recipe(path, [f"data.window={window}", *overrides], catalogue())
    torch.manual_seed(0)
    action = ActionSpec(window=window, horizon=3, dim=4, binary=(3,))
    return build_policy(recipe, CAMERAS, action, proprio_dim=5).eval()


@torch.no_grad()
def perturbed(policy: Policy) -> Policy:
    """Move the weights away from their initial values, many of which are zero or nearly so."""
    for number, weight in enumerate(policy.parameters()):
        weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    return policy


def batch_of(policy: Policy, window: int = 1, rows: int = len(INSTRUCTIONS)) -> Batch:
    """Return random frames, instructions of several lengths, and partly masked actions."""
    generator = torch.Generator().manual_seed(1)
    instructions = [INSTRUCTIONS[i % len(INSTRUCTIONS)] for i in range(rows)]
    ids = [torch.tensor(policy.text_encoder.tokenize(text)) for text in instructions]
    lengths = torch.tensor([len(row) for row in ids])
    actions = torch.rand(rows, window, 3, 4, generator=generator) * 2 - 1
    actions[..., 3] = (actions[..., 3] > 0).float()
    mask = torch.ones_like(actions, dtype=torch.bool)
    mask[0, -1, 2:] = False  # past an episode's end
    mask[-1, ..., 1] = False  # its robot lacks this dimension
    return Batch(
        images={
            name: torch.randint(256, (rows, window, *shape), generator=generator, dtype=torch.uint8)
            for name, shape in CAMERAS.items()
        },
        instructions=instructions,
        text_ids=torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        text_mask=torch.arange(int(lengths.max())) < lengths[:, None],
        proprio=torch.randn(rows, window, 5, generator=generator),
        actions=actions,
        action_mask=mask,
        episodes=[f"episode {i}" for i in range(rows)],
    )
