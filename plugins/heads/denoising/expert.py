"""The head "expert": pi0's action expert, which attends to every layer of the backbone."""

from collections.abc import Iterable

from torch import Tensor, nn

from core import ActionSpec, Batch, Context, ContextSpec, Generator, PolicyHead
from plugins.heads.denoising.denoising import Denoising
from plugins.heads.denoising.expert_config import ExpertConfig
from plugins.heads.denoising.expert_network import Expert
from plugins.heads.denoising.flow_matching import FlowMatching


class ExpertHead(PolicyHead):
    """Carries noise straight to the chunk of every frame, given the backbone's keys and values.

    The backbone never sees the expert, so that it runs once for all steps of sampling, and the
    expert's layers after it give the numbers of pi0, where both run side by side. Action tokens of
    the backbone are not needed: the expert reads all tokens.
    """

    needs = frozenset({"keys_values"})

    def __init__(self, config: ExpertConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        expert = Expert(config, context, action)
        self.denoising = Denoising(FlowMatching(config), expert, action, clip=config.clip)

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The expert's blocks, for gradient checkpointing."""
        return self.denoising.denoiser.blocks

    def forward(self, context: Context, generator: Generator) -> Tensor:
        """Return sampled actions (B T H A): normalised, binary dimensions in [0, 1]."""
        return self.denoising.sample(context, generator)

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        """Return the squared error "flow" of the expert's velocity."""
        return {"flow": self.denoising.loss(context, batch, generator)}

    def validation_error(self, context: Context, batch: Batch, generator: Generator) -> Tensor:
        """Return the same error of every sample (B)."""
        return self.denoising.error_per_sample(context, batch, generator)
