"""Policy heads that make action chunks out of noise: diffusion, flow matching, and pi0's expert.

A head joins a process, which says how noise becomes actions (`NoiseDiffusion` or `FlowMatching`),
with a denoiser, the network that the process asks at every step; `Denoising` does what all heads
have in common. Every process works with every denoiser.
"""

from core import Register, hookimpl
from plugins.heads.denoising.diffusion import DiffusionConfig, DiffusionHead
from plugins.heads.denoising.expert import ExpertHead
from plugins.heads.denoising.expert_config import ExpertConfig
from plugins.heads.denoising.flow import FlowConfig, FlowHead


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "diffusion", "flow" and "expert"."""
    register("diffusion", DiffusionConfig, DiffusionHead)
    register("flow", FlowConfig, FlowHead)
    register("expert", ExpertConfig, ExpertHead)
