"""The contracts: what each kind of part of a policy must do.

Shape legend, used throughout:
    B batch          T window (history frames)    V cameras              N tokens, M text tokens
    Q action tokens per frame                     D width                S sequences (B or B * T)
    L tokens per sequence   H action horizon (chunk)   A action dimensions   P proprioception
    C Y X image channels, rows, columns           K key heads            d width of a head

Each part is an `nn.Module` derived from one of the five abstract classes. "Built as" lists the
keyword arguments that core offers; a build function or class receives the arguments that its
signature names. core/contracts/batch.py defines what flows between the parts.
core/contracts/abilities.py defines what a part can offer beyond its contract.

No part keeps state between calls or draws from a global random generator, and no sample's result
depends on other samples of the batch or on padding; `core.testing` checks this. To write a simple
policy head, read `ActionSpec`, `PolicyHead` and `Context.readout` (core/contracts/context.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from core.contracts.batch import Batch, Memory, State, TokenGroup, TokenSequence
from core.contracts.needs import Need

if TYPE_CHECKING:
    from core.contracts.context import Context
    from core.contracts.generator import Generator


# ------------------------------------------------------------------------------------- policy heads


@dataclass(frozen=True)
class ActionSpec:
    """The actions that a policy head must produce: (B T H A), normalised.

    window: T.
    horizon: H.
    dim: A.
    binary: indices of the dimensions with values 0 or 1, such as a gripper with two states.
    bounded: whether the continuous dimensions lie in [-1, 1].
    """

    window: int
    horizon: int
    dim: int
    binary: tuple[int, ...] = ()
    bounded: bool = True

    @property
    def continuous(self) -> tuple[int, ...]:
        """Indices of the dimensions that are not binary."""
        return tuple(i for i in range(self.dim) if i not in self.binary)


class PolicyHead(nn.Module, ABC):
    """Context -> actions. Built as `build(config, *, context: ContextSpec, action: ActionSpec)`.

    needs: what the head reads from the context in addition to the readout. Core computes an entry
        of the context only if a head of the policy needs it.
        "tokens": `context.memory.tokens`, the last hidden states of all tokens, from any backbone;
        "keys_values": the keys and values of every layer, in `context.memory`;
        "hidden_states": the hidden states of every layer, in `context.memory`;
        "extend": `context.extend`, to run further tokens after the tokens of the observations;
        "vision": `context.vision`, the vision encoder's tokens, before the backbone runs;
        "proprio": `context.proprio`;
        "logits": `context.embed` and `context.logits`, which use the text encoder.
    needs_actions: whether `loss` reads `batch.actions`. If True, core does not call `loss` for
        batches without actions.
    carries: whether the head's state reaches from one training window to the next. Such a head
        reads `context.state` in `forward` and `loss`, and has `next_state`.
    """

    needs: frozenset[Need] = frozenset()
    needs_actions: bool = True
    carries: bool = False

    @abstractmethod
    def forward(self, context: "Context", generator: "Generator") -> Tensor:
        """Return normalised actions for each frame (B T H A); noise is drawn from `generator`."""

    @abstractmethod
    def loss(self, context: "Context", batch: Batch, generator: "Generator") -> dict[str, Tensor]:
        """Return named scalar loss terms; training minimises their sum."""

    def initial_state(self, rows: int) -> State:  # noqa: ARG002 (most heads remember nothing)
        """Return the head's state at the start of an episode: tensors with `rows` rows."""
        return {}

    def next_state(self, context: "Context") -> State:
        """Return the state after the window's last frame, for a head that carries.

        The window begins with `context.state`, or with the initial state if that is None. The
        state is the same as after `act` for each frame. Core calls this without gradients.
        """
        raise NotImplementedError(
            f"{type(self).__name__} carries no state from one window to the next"
        )

    def act(self, context: "Context", state: State, generator: "Generator") -> tuple[Tensor, State]:
        """Context of one new frame (T = 1) and previous state -> actions (B H A) and next state."""
        actions: Tensor = self(context, generator)
        return actions[:, -1], state

    def validation_error(
        self,
        context: "Context",  # noqa: ARG002
        batch: Batch,  # noqa: ARG002
        generator: "Generator",  # noqa: ARG002
    ) -> Tensor | None:
        """Return each sample's validation error (B), or None to use the squared error of `forward`.

        Heads that draw random actions override this method. A good random action can differ from
        the recorded action, so the squared error between them says little.
        """
        return None


# ---------------------------------------------------------------------------------- the other parts


class VisionEncoder(nn.Module, ABC):
    """Images -> tokens. Built as `build(config, *, cameras, text_width: int, features)`.

    Arguments of the build:
    cameras: {name: (C, Y, X)}.
    features: {name: Feature}, the features that `data.features` in the recipe names, such as depth.

    Attributes:
    width: width of the tokens.
    cameras: names of the cameras, in the order of their tokens.
    separates_cameras: whether the tokens come camera after camera, each camera has the same number
        of tokens, and each token depends on its camera's image alone. Core can then hide the tokens
        of a camera that a sample lacks. An encoder that mixes cameras sets False.
    """

    width: int
    cameras: Sequence[str]
    separates_cameras: bool = True

    @abstractmethod
    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:
        """{camera: (B T C Y X) uint8}, text (B M text_width) -> (B T N width).

        `images` also holds the features, {feature: (B T ...)}, with their recorded dtype. `text` is
        for encoders whose tokens depend on the instruction.
        """


class TextEncoder(nn.Module, ABC):
    """Instructions -> tokens. Built as `build(config)`.

    An encoder with an output layer also has the attributes of `HasOutputLayer`, and one with a
    token for unknown words those of `HasUnknownToken`.

    width: width of the tokens.
    prefix: number of leading tokens of every instruction that must stand before the images, such as
        a begin-of-sequence token.
    """

    width: int
    prefix: int = 0

    @abstractmethod
    def tokenize(self, instruction: str) -> Sequence[int]:
        """Return the token ids of one instruction.

        Core calls this method once for each different instruction of the training data, before
        the first step. Raise a DataError for an instruction that the encoder cannot take.
        """

    @abstractmethod
    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """Ids (B N) int64, mask (B N) bool -> (B N width)."""


@dataclass(frozen=True)
class LayerSpec:
    """Sizes of the layers whose keys and values a backbone keeps.

    depth: number of layers.
    heads: number of heads of the queries.
    key_heads: K, number of heads of the keys; less than `heads` if several query heads share a key
        head.
    head_width: d, width of one head.
    """

    depth: int
    heads: int
    key_heads: int
    head_width: int


class Backbone(nn.Module, ABC):
    """Mixes the tokens of a sequence. Built as `build(config)`; only `forward` is required.

    width: width of the tokens.
    longest: maximum number of tokens in a sequence that `remember` accepts; None: no limit.
    obstacle: why this instance offers less than its class, for error messages.
    mixes: False if no token sees another token.
    both_ways: False if no token can see a later token of the same block, as in recurrent networks.
    offers: what `remember` offers, some of: "keys_values"; "hidden_states"; "extend"; "losses", the
        backbone's terms of the training loss; "carry", the state of a recurrent backbone, which
        lets an acting policy take the same time for each frame.
    layer_spec: sizes of the layers; None if the backbone does not offer "keys_values".
    """

    width: int
    longest: int | None = None
    obstacle: str = ""
    mixes: bool = True
    both_ways: bool = True
    offers: frozenset[str] = frozenset()
    layer_spec: LayerSpec | None = None

    @abstractmethod
    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> hidden states (S L width), masked as core/contracts/attention.py says."""

    def read(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> hidden states of the action tokens (B T Q width); most heads read them."""
        hidden: Tensor = self(sequence)
        return hidden.flatten(0, 1)[sequence.readout]

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """Run a sequence after the past, if any -> memory of the past followed by the sequence."""
        raise NotImplementedError(
            f"{type(self).__name__} offers {sorted(self.offers)}, and so has no memory"
        )

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:  # noqa: ARG002 (not all rotate)
        """Rotate queries or keys (S heads n d) for positions (S n), as this backbone does."""
        return x


class ActionTokens(nn.Module, ABC):
    """Arranges vision, text and action tokens in sequences, and says where action tokens are.

    Built as `build(config, *, width: int, action: ActionSpec, proprio_dim: int, text_prefix: int)`;
    text_prefix is the number of leading text tokens that must stand before the images.

    count: Q, number of action tokens per frame; 0 if the head reads other tokens.
    causal: True if no token sees a later token; False for layouts with blocks of several tokens.
    reads_past: whether `layout` takes a further argument, `past: PastActions | None`: the action
        that was executed before each frame.
    context: number of frames in a sequence; while acting, that many of the latest frames are kept.
    """

    count: int
    causal: bool = True
    reads_past: bool = False
    context: int = 1

    @abstractmethod
    def layout(
        self,
        vision: TokenGroup,
        text: TokenGroup,
        proprio: Tensor | None,
        batch: Batch | None,
        generator: "Generator",
    ) -> TokenSequence:
        """Vision (B T N D), text (B M D), proprio (B T P) -> sequences with action tokens.

        batch: given only while the loss is computed, for layouts that depend on the actions, such
            as ACT's; None while the policy predicts or acts.
        """
