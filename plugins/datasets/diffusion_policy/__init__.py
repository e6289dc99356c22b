"""Replay buffers of Diffusion Policy (https://github.com/real-stanford/diffusion_policy)."""

from core import Register, hookimpl
from plugins.datasets.diffusion_policy.source import DiffusionPolicy, DiffusionPolicyConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "diffusion_policy"."""
    register("diffusion_policy", DiffusionPolicyConfig, DiffusionPolicy)
