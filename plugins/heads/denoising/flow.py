"""The head "flow": flow matching over action chunks, given the readout."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from core import ActionSpec, Batch, Context, ContextSpec, Generator, PolicyHead
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoisers import build_denoiser
from plugins.heads.denoising.denoising import Denoising
from plugins.heads.denoising.flow_matching import FlowMatching, FlowMatchingConfig, encode_time


@dataclass(frozen=True)
class FlowConfig(FlowMatchingConfig, DenoiserConfig):
    """Flow matching (Lipman et al. 2023) over each frame's chunk.

    The head has no memory: only the backbone sees the history.
    """


class FlowHead(PolicyHead):
    """Carries noise straight to the chunk of every frame, given that frame's readout.

    Raises ConfigError if the U-Net cannot halve the chunk as often as it must.
    """

    def __init__(self, config: FlowConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        self.denoising = Denoising(
            FlowMatching(config),
            build_denoiser(config, encode_time, context, action),
            action,
            clip=config.clip,
        )

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The network's blocks, for gradient checkpointing."""
        return self.denoising.denoiser.blocks

    def forward(self, context: Context, generator: Generator) -> Tensor:
        """Return sampled actions (B T H A): normalised, binary dimensions in [0, 1]."""
        return self.denoising.sample(context, generator)

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        """Return the squared error "flow" of the network's velocity."""
        return {"flow": self.denoising.loss(context, batch, generator)}

    def validation_error(self, context: Context, batch: Batch, generator: Generator) -> Tensor:
        """Return the same error of every sample (B)."""
        return self.denoising.error_per_sample(context, batch, generator)
