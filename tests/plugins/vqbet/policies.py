"""Small policies of VQ-BeT's parts, and batches for them."""

from pathlib import Path
from typing import Any

import torch

from core import ActionSpec, Batch
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins

RECIPE = """
[data]
path = "unused.zarr"
window = {window}
proprio_normalization = "min_max"
[vision_encoder]
name = "resnet_keypoints"
keypoints = {keypoints}
width = {image_width}
project_to = {width}
[text_encoder]
name = "none"
[backbone]
name = "mingpt"
width = {width}
hidden_size = {hidden_size}
depth = {depth}
heads = {heads}
max_tokens = {max_tokens}
dropout = 0.0
[action_tokens]
name = "vqbet"
queries = {queries}
[policy_head]
name = "vqbet"
codes = {codes}
code_width = {code_width}
hidden_size = {code_hidden_size}
offset_weight = {offset_weight}
offset_codes = "drawn"
"""
SIZES = {
    "window": 2,
    "queries": 2,
    "chunk": 3,
    "keypoints": 4,
    "width": 16,
    "hidden_size": 24,
    "depth": 2,
    "heads": 4,
    "max_tokens": 20,
    "codes": 4,
    "code_width": 6,
    "code_hidden_size": 12,
    "action_dim": 2,
    "proprio_dim": 3,
    "offset_weight": 10_000,
}
CAMERAS = {"top": (3, 32, 64)}


def action_of(sizes: dict[str, int]) -> ActionSpec:
    """Return what the policy acts in: its horizon reaches to the end of the last chunk."""
    horizon = sizes["chunk"] + sizes["queries"] - 1
    return ActionSpec(window=sizes["window"], horizon=horizon, dim=sizes["action_dim"])


def build(folder: Path, *overrides: str, sizes: dict[str, int] = SIZES) -> Policy:
    """Build a policy of VQ-BeT's parts with random weights, or with those that overrides name."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(image_width=2 * sizes["keypoints"], **sizes))
    recipe = load_recipe(path, list(overrides), load_plugins())
    torch.manual_seed(0)
    return build_policy(recipe, CAMERAS, action_of(sizes), sizes["proprio_dim"])


def batch_of(sizes: dict[str, int] = SIZES, rows: int = 4) -> Batch:
    """Return random windows of episodes that go on for the whole horizon of their last frame."""
    generator = torch.Generator().manual_seed(1)
    action, window = action_of(sizes), sizes["window"]
    whole = torch.rand(rows, window + action.horizon - 1, action.dim, generator=generator) * 2 - 1
    actions = torch.stack([whole[:, t : t + action.horizon] for t in range(window)], dim=1)
    given: dict[str, Any] = {
        "images": {
            name: torch.randint(256, (rows, window, *shape), generator=generator, dtype=torch.uint8)
            for name, shape in CAMERAS.items()
        },
        "proprio": torch.randn(rows, window, sizes["proprio_dim"], generator=generator),
    }
    return Batch(
        **given,
        instructions=[""] * rows,
        text_ids=torch.zeros(rows, 0, dtype=torch.int64),
        text_mask=None,
        actions=actions,
        action_mask=torch.ones_like(actions, dtype=torch.bool),
        episodes=[f"episode {row}" for row in range(rows)],
    )
