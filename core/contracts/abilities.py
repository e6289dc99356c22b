"""What a part can offer beyond its contract.

A part has an ability if it has the attributes of the ability's Protocol. The part does not inherit
from the Protocol.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from torch import Tensor, nn

if TYPE_CHECKING:
    from core.weights.pretrained import Pretrained


@runtime_checkable
class HasBlocks(Protocol):
    """A part with repeated blocks, which gradient checkpointing wraps one by one."""

    # in the order in which the blocks run
    blocks: Sequence[nn.Module]


@runtime_checkable
class HasOutputLayer(Protocol):
    """A text encoder with an output layer, for heads that need "logits".

    vocabulary: number of tokens that `logits` scores; 0 if the encoder was built without an output
    layer.
    """

    vocabulary: int

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B n) int64 -> tokens (B n width); each token depends on its id alone."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (... width) -> scores of the whole vocabulary (... vocabulary)."""


@runtime_checkable
class HasTokenCount(Protocol):
    """A vision encoder that knows when it is built how many tokens it gives of every frame.

    count: N, of all cameras together. Heads that concatenate the tokens find it in
        `ContextSpec.vision_tokens`.
    """

    count: int


@runtime_checkable
class HasUnknownToken(Protocol):
    """A text encoder with a token for all words that it does not know.

    unknown_id: id of that token; None if every text consists of known tokens. Training says how
        many tokens of the instructions are unknown.
    """

    unknown_id: int | None


@runtime_checkable
class Loadable(Protocol):
    """A part that starts from published weights if a recipe sets `pretrained`.

    source: the folder, or the name on the Hugging Face hub, from which `pretrained = true` loads;
        None if the part has no such default.

    Without this ability, a part can only start from the checkpoint of a run.

    An optional attribute `extra_parameters` names the parameters that no published weights contain;
    checkpoints always include these parameters.
    """

    source: str | None

    def load_pretrained(self, weights: "Pretrained") -> None:
        """Load the weights that belong to the part.

        Raises a ConfigError that lists every missing, unexpected or misshapen tensor.
        """


@runtime_checkable
class Adaptable(Protocol):
    """A part that can begin with weights of the same component with other settings.

    Without this ability, a weight of another shape begins anew, if [start] in the recipe says so.
    """

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of another run's part as this part can use them.

        former: that part, for example with other cameras or another vocabulary.
        tensors: its weights, {name: weight}.

        The result has the weights that carry over, under this part's names, each as it is or
        adapted; a weight that only this part has may be its own, random one. Names and shapes that
        still do not fit are reported to the user.
        """


@runtime_checkable
class Publishable(Protocol):
    """A part that can be written in the layout in which its weights were published."""

    def publish(self) -> dict[str, Tensor]:
        """Return the part's tensors under their published names."""

    def describe(self) -> dict[str, Any]:
        """Return the entries of the published config.json that describe the part."""


@runtime_checkable
class HasFiles(Protocol):
    """A publishable part that needs further files beside the weights and config.json."""

    def publish_files(self, folder: Path) -> None:
        """Write the files: those of a tokenizer, or the statistics of pixels, for example."""


@runtime_checkable
class HasAssumptions(Protocol):
    """A part that had to assume something that its files or its section should say.

    assumptions: a sentence for each assumption, which training prints.
    """

    assumptions: Sequence[str]


@runtime_checkable
class CheckpointPublishable(Protocol):
    """A part that can be written to a training checkpoint (.ckpt) as well as read from one.

    The part knows the names of its tensors in such a checkpoint; core writes the file.
    """

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Return the part's tensors under their names in the training checkpoint's state dict."""
