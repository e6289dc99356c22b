"""The head "flow": flow matching over action chunks."""

from dataclasses import dataclass

from core import ActionSpec, ContextSpec
from plugins.heads.denoising.condition import Condition
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoisers import build_denoiser
from plugins.heads.denoising.denoising import Denoising
from plugins.heads.denoising.flow_matching import FlowMatching, FlowMatchingConfig, encode_time
from plugins.heads.denoising.head import DenoisingHead


@dataclass(frozen=True)
class FlowConfig(FlowMatchingConfig, DenoiserConfig):
    """Flow matching (Lipman et al. 2023) over each frame's chunk."""


def build_flow(config: FlowConfig, *, context: ContextSpec, action: ActionSpec) -> DenoisingHead:
    """Build the head, which carries noise straight to the chunk of every frame.

    Raises ConfigError if the window or the vision encoder does not fit the condition, or if the
    U-Net cannot halve the chunk as often as it must.
    """
    condition = Condition(config, context, action)
    denoiser = build_denoiser(config, encode_time, condition.context, condition.action)
    denoising = Denoising(FlowMatching(config), denoiser, condition.action, clip=config.clip)
    return DenoisingHead("flow", denoising, condition)
