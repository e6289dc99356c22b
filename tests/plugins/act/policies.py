"""Small policies of ACT's parts, and batches for them."""

from pathlib import Path

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
[action]
normalization = "mean_std"
[vision_encoder]
name = "act_vision"
model = "{resnet}"
width = {width}
[text_encoder]
name = "none"
[backbone]
name = "act"
width = {width}
depth = {encoder_layers}
heads = {heads}
mlp_width = {mlp_width}
dropout = 0.0
[action_tokens]
name = "act"
latent_width = {latent_width}
layers = {cvae_layers}
heads = {heads}
mlp_width = {mlp_width}
dropout = 0.0
[policy_head]
name = "act"
layers = {decoder_layers}
heads = {heads}
mlp_width = {mlp_width}
dropout = 0.0
average = "all"
"""
SIZES = {
    "window": 1,
    "resnet": "test_resnet",
    "width": 32,
    "heads": 4,
    "mlp_width": 24,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "cvae_layers": 1,
    "latent_width": 4,
}
CAMERAS = {"top": (3, 32, 64)}
ACTION = ActionSpec(window=1, horizon=5, dim=2, bounded=False)


def build(
    folder: Path,
    *overrides: str,
    sizes: dict[str, object] = SIZES,
    cameras: dict[str, tuple[int, int, int]] = CAMERAS,
    action: ActionSpec = ACTION,
    proprio_dim: int = 3,
) -> Policy:
    """Build a policy of ACT's parts with random weights, or with those that overrides name."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(**sizes))
    recipe = load_recipe(path, list(overrides), load_plugins())
    torch.manual_seed(0)
    return build_policy(recipe, cameras, action, proprio_dim)


def batch_of(
    action: ActionSpec = ACTION,
    *,
    cameras: dict[str, tuple[int, int, int]] = CAMERAS,
    proprio_dim: int = 3,
    rows: int = 3,
) -> Batch:
    """Return random samples; the first one's chunks end before their last action."""
    generator = torch.Generator().manual_seed(1)
    lead = (rows, action.window)
    mask = torch.ones(*lead, action.horizon, action.dim, dtype=torch.bool)
    mask[0, :, -1:] = False
    return Batch(
        images={
            name: torch.randint(256, (*lead, *shape), generator=generator, dtype=torch.uint8)
            for name, shape in cameras.items()
        },
        instructions=[""] * rows,
        text_ids=torch.zeros(rows, 0, dtype=torch.int64),
        text_mask=None,
        proprio=torch.randn(*lead, proprio_dim, generator=generator),
        actions=torch.randn(*lead, action.horizon, action.dim, generator=generator),
        action_mask=mask,
        episodes=[f"episode {row}" for row in range(rows)],
    )
