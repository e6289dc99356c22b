"""The heads "diffusion" and "flow", which differ in their process alone."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from core import Batch, ConfigError, Context, Generator, Need, PolicyHead, State
from core.weights import Pretrained
from plugins.heads.denoising.condition import Condition
from plugins.heads.denoising.denoising import Denoising


class DenoisingHead(PolicyHead):
    """Makes the chunk of every frame out of noise, given that frame's condition.

    term: name of the loss.
    load: loads published weights into the denoiser, and returns what it had to assume; None: there
        are none.
    """

    source = None  # `pretrained = true` is refused: LeRobot publishes many

    def __init__(
        self,
        term: str,
        denoising: Denoising,
        condition: Condition,
        load: Callable[[Pretrained], tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.term, self.denoising, self.condition = term, denoising, condition
        self._load = load
        self.assumptions: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override] # depends on the configuration
        """What the condition reads of the context."""
        return self.condition.needs

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The network's blocks, for gradient checkpointing."""
        return self.denoising.denoiser.blocks

    def forward(self, context: Context, generator: Generator) -> Tensor:
        """Return sampled actions (B T H A): normalised, binary dimensions in [0, 1]."""
        chunk = self.denoising.sample(self.condition.of_window(context), generator)
        return chunk[:, :, self.condition.past :]

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        """Return the squared error of what the network predicts."""
        context, batch = self.condition.of_window(context), self.condition.targets(batch)
        return {self.term: self.denoising.loss(context, batch, generator)}

    def validation_error(self, context: Context, batch: Batch, generator: Generator) -> Tensor:
        """Return the same error of every sample (B)."""
        context, batch = self.condition.of_window(context), self.condition.targets(batch)
        return self.denoising.error_per_sample(context, batch, generator)

    def initial_state(self, rows: int) -> State:
        """Return the state before an episode's first frame; empty if the condition is one frame."""
        return self.condition.initial_state(rows, next(self.parameters()))

    def act(self, context: Context, state: State, generator: Generator) -> tuple[Tensor, State]:
        """Return a sampled chunk of the newest frame (B H A), and the next state."""
        context, state = self.condition.of_newest(context, state)
        chunk = self.denoising.sample(context, generator)
        return chunk[:, -1, self.condition.past :], state

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load LeRobot's U-Net, strictly; raises ConfigError that lists what does not fit."""
        if self._load is None:
            raise ConfigError("pretrained: nobody publishes weights of this head; drop it")
        self.assumptions = self._load(weights)
