"""The contracts: what each kind of part of a policy must do.

Shape legend, used throughout:
    B batch          T window (history frames)    V cameras              N tokens, M of the text
    Q action tokens per frame                     D width                S sequences (B or B * T)
    L tokens per sequence   H action horizon (chunk)   A action dimension    P proprioception
    C Y X image channels, rows, columns           K key heads            d width of a head

Each part is an `nn.Module` derived from one of the five abstract classes. "Built as" lists the
keyword arguments that core offers; a build receives those that its signature names, as a hook of
pluggy does. What flows between the parts: core/contracts/batch.py. What a part may be able to do beside:
core/contracts/abilities.py.

No part hides state or draws from a global generator, and no sample's result depends on its batch
neighbours or on padding: `core.testing` proves all of that. To write a simple policy head, read
`ActionSpec`, `PolicyHead` and `Context.readout` (core/contracts/context.py); the rest is for those
that need more.
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
    """What a policy head must produce: (B T H A), and what the normalised dimensions are like."""

    window: int  # T
    horizon: int  # H
    dim: int  # A
    binary: tuple[
        int, ...
    ] = ()  # dimensions in {0, 1}, a two-state gripper for example; the others are continuous
    bounded: bool = True  # the continuous dimensions lie in [-1, 1]

    @property
    def continuous(self) -> tuple[int, ...]:
        """The dimensions that are regressed."""
        return tuple(i for i in range(self.dim) if i not in self.binary)


class PolicyHead(nn.Module, ABC):
    """Context -> actions. Built as `build(config, *, context: ContextSpec, action: ActionSpec)`.

    needs: what the head reads of the context beyond the readout; core computes nothing that no head
    needs.
        "tokens": `context.memory.tokens`, the last hidden states of all tokens, any backbone;
        "keys_values", "hidden_states": of every layer, in `context.memory`;
        "extend": `context.extend`, further tokens on top of the observations;
        "vision": `context.vision`, before the backbone; "proprio": `context.proprio`;
        "logits": `context.embed` and `context.logits`, the words of the text encoder.
    needs_actions: whether `loss` reads `batch.actions`; if so, core leaves the head out for batches
    without actions.
    """

    needs: frozenset[Need] = frozenset()
    needs_actions: bool = True

    @abstractmethod
    def forward(self, context: "Context", generator: "Generator") -> Tensor:
        """Return actions (B T H A), normalised, for every frame of the context; noise comes from
        `generator` alone.
        """

    @abstractmethod
    def loss(self, context: "Context", batch: Batch, generator: "Generator") -> dict[str, Tensor]:
        """Return named scalar terms; their sum is what training minimises."""

    def initial_state(self, rows: int) -> State:  # noqa: ARG002 (most remember nothing)
        """What the head remembers at the start of an episode: tensors whose first size is `rows`."""
        return {}

    def act(self, context: "Context", state: State, generator: "Generator") -> tuple[Tensor, State]:
        """A context of one new frame (T = 1) and the last state -> actions (B H A) and the next
        state.
        """
        actions: Tensor = self(context, generator)
        return actions[:, -1], state

    def validation_error(
        self,
        context: "Context",  # noqa: ARG002
        batch: Batch,  # noqa: ARG002
        generator: "Generator",  # noqa: ARG002
    ) -> Tensor | None:
        """A figure (B) to validate by, lower is better; None: the squared error of `forward`.

        For heads that sample: a good sample may differ from the recorded action, so its squared
        error says little.
        """
        return None


# --------------------------------------------------------------------------------------- what flows


@dataclass(frozen=True)
class LayerSpec:
    """The layers whose keys and values a backbone keeps."""

    depth: int
    heads: int
    key_heads: int  # K: fewer than heads where queries share keys
    head_width: int  # d


# ---------------------------------------------------------------------------------- the other parts


class VisionEncoder(nn.Module, ABC):
    """Images -> tokens per frame. Built as `build(config, *, cameras: {name: (C, Y, X)},
    text_width: int, features)`.

    features: {name: Feature} of what else the recipe reads in data.features: depth, for example.
    cameras: names, in the order in which their tokens come.
    separates_cameras: tokens come camera after camera, as many of each, and see no other camera's
    image. So core can hide those of a camera that a sample lacks; an encoder that mixes cameras
    says False.
    """

    width: int
    cameras: Sequence[str]
    separates_cameras: bool = True

    @abstractmethod
    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:
        """{camera: (B T C Y X) uint8}, text (B M text_width) for those that condition on it -> (B T
        N width).

        Beside the cameras, `images` holds the features by their names: (B T ...) in the type that
        was recorded.
        """


class TextEncoder(nn.Module, ABC):
    """Instructions -> tokens. Built as `build(config)`. One that has an output layer may be
    `HasOutputLayer`, too.
    """

    width: int
    # leading tokens of every instruction that stand before the images: a begin-of-sentence token
    prefix: int = 0

    @abstractmethod
    def tokenize(self, instruction: str) -> Sequence[int]:
        """Token ids of one instruction; core calls it once per distinct instruction, off the
        training thread.
        """

    @abstractmethod
    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """ids (B N) int64, mask (B N) bool -> (B N width)."""


class Backbone(nn.Module, ABC):
    """Mixes the sequence. Built as `build(config)`.

    A simple one implements `forward` alone. `offers` lists what `remember` adds: "keys_values",
    "hidden_states",
    "extend", the backbone's own "losses", and "carry", the state with which a recurrent one acts in
    constant time.

    mixes: False where no token sees another.
    both_ways: False where no token can see a later one of its block, as in recurrent networks.
    longest: tokens of the longest sequence that `remember` takes; None: any.
    obstacle: why this instance offers less than its class, for the error message.
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
        """(S L width) -> hidden states (S L width); `core.contracts.attention` says which token
        sees which.
        """

    def read(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> readout (B T Q width): hidden states of the action tokens, all that most
        heads ask for.
        """
        hidden: Tensor = self(sequence)
        return hidden.flatten(0, 1)[sequence.readout]

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """Run a sequence behind the past, if there is one -> the memory of both, the past's tokens
        first.
        """
        raise NotImplementedError(
            f"{type(self).__name__} offers {sorted(self.offers)}, and so has no memory"
        )

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:  # noqa: ARG002 (most positions are no rotations)
        """Queries or keys (S heads n d) of tokens at positions (S n) -> turned as this backbone
        turns its own.
        """
        return x


class ActionTokens(nn.Module, ABC):
    """Owns the formulation: how vision, text and action tokens form sequences, and where actions
    are read.

    Built as `build(config, *, width: int, action: ActionSpec, proprio_dim: int, text_prefix: int)`.
    text_prefix: leading words of every instruction that must stand before the images.
    """

    count: int  # Q: action tokens per frame; 0 where the head reads other tokens
    causal: bool = (
        True  # no token sees a later one; False for layouts with blocks of several tokens
    )
    context: int = (
        1  # frames that one sequence spans: at most so many are kept when acting frame by frame
    )

    @abstractmethod
    def layout(
        self,
        vision: TokenGroup,
        text: TokenGroup,
        proprio: Tensor | None,
        batch: Batch | None,
        generator: "Generator",
    ) -> TokenSequence:
        """vision (B T N D), text (B M D), proprio (B T P) -> sequences with the action tokens in
        place.

        batch: while training, for layouts that depend on the targets, as ACT's does; None
        otherwise.
        """
