"""The denoisers that read the readout, by name."""

from collections.abc import Callable

from core import ActionSpec, ContextSpec
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoising import Denoiser, EncodeTime
from plugins.heads.denoising.mlp import MLPDenoiser
from plugins.heads.denoising.mlp_resnet import MLPResNetDenoiser
from plugins.heads.denoising.transformer import TransformerDenoiser
from plugins.heads.denoising.unet import UNetDenoiser

DENOISERS: dict[str, Callable[[DenoiserConfig, EncodeTime, ContextSpec, ActionSpec], Denoiser]] = {
    "mlp": MLPDenoiser,
    "mlp_resnet": MLPResNetDenoiser,
    "transformer": TransformerDenoiser,
    "unet": UNetDenoiser,
}


def build_denoiser(
    config: DenoiserConfig, encode: EncodeTime, context: ContextSpec, action: ActionSpec
) -> Denoiser:
    """Build the denoiser that a recipe names; `encode` gives it features of the process's time.

    Raises ConfigError if the U-Net cannot halve the chunk as often as it must.
    """
    return DENOISERS[config.denoiser](config, encode, context, action)
