"""What a part may be able to do beside its contract: it shows it by having the attributes, and
inherits nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

if TYPE_CHECKING:
    from core.weights.pretrained import Pretrained


@runtime_checkable
class HasBlocks(Protocol):
    """A part with repeated blocks: gradient checkpointing, adapters and sharding walk them."""

    blocks: Sequence[nn.Module]  # in the order in which they run


@runtime_checkable
class HasOutputLayer(Protocol):
    """A text encoder with an output layer, tied to its embedding or not: what heads that write
    words need.
    """

    vocabulary: int  # words that are scored; 0 where it was built without an output layer

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B n) int64 -> tokens (B n width), each word on its own: none depends on a later one."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (... width) -> scores of all words (... vocabulary)."""


@runtime_checkable
class Loadable(Protocol):
    """A part that can start from published weights: what the recipe's `pretrained` asks for."""

    source: str | None  # what `pretrained = true` stands for; None where it stands for nothing

    def load_pretrained(self, weights: "Pretrained") -> None:
        """Take the part's share, strictly; raise ConfigError that lists whatever does not fit.

        A part with parameters that no source has names them in `extra_parameters`.
        """


@runtime_checkable
class Publishable(Protocol):
    """A part that can be written back in the layout in which its weights were published."""

    def publish(self) -> dict[str, Tensor]:
        """The part's tensors under their published names."""

    def describe(self) -> dict[str, Any]:
        """The part's share of the published config.json."""


@runtime_checkable
class CheckpointPublishable(Protocol):
    """A part that can be written back as a piece of the training checkpoint (.ckpt) of its authors.

    Only the part knows its names there; core writes the file.
    """

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """The part's tensors under their names in that checkpoint's state dict."""
