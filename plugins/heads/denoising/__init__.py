"""Policy heads that make action chunks out of noise: diffusion, flow matching, and pi0's expert.

A head joins a process, which says how noise becomes actions (`NoiseDiffusion` or `FlowMatching`),
with a denoiser, the network that the process asks at every step; `Denoising` does what all heads
have in common. Every process works with every denoiser. What a denoiser is told of each frame is a
`Condition`; the expert reads the backbone's layers instead.
"""

from core import Register, hookimpl
from plugins.heads.denoising.diffusion import DiffusionConfig, build_diffusion
from plugins.heads.denoising.expert import ExpertHead
from plugins.heads.denoising.expert_config import ExpertConfig
from plugins.heads.denoising.flow import FlowConfig, build_flow


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "diffusion", "flow" and "expert"."""
    register("diffusion", DiffusionConfig, build_diffusion)
    register("flow", FlowConfig, build_flow)
    register("expert", ExpertConfig, ExpertHead)
