"""The contracts: what flows between the parts, and what each kind of part must do.

Shape legend, used throughout:
    B batch          T window (history frames)    V cameras              N tokens, M of the text
    Q action tokens per frame                     D width                S sequences (B or B * T)
    L tokens per sequence   H action horizon (chunk)   A action dimension    P proprioception
    C Y X image channels, rows, columns

Each part is an `nn.Module` below one of the five abstract classes. Episodes and worlds: core/data/contracts.py.
No part hides state, and no sample's result depends on its batch neighbours or on padding: `core.testing` proves both.
A part whose weights others publish may be `Loadable`, and `Publishable`, too.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from torch import Tensor, device, nn

if TYPE_CHECKING:
    from core.pretrained import Pretrained

# ---------------------------------------------------------------------------------------------- what flows


@dataclass(frozen=True)
class TokenGroup:
    """Tokens and which of them are real; carried across every boundary (after Octo's TokenGroup)."""

    tokens: Tensor  # (... N D)
    mask: Tensor | None = None  # (... N) bool, True where real; None: all are, known without asking the device


@dataclass(frozen=True)
class TokenSequence:
    """The backbone's input: packed sequences, real tokens first, so that position = index and causal needs no mask."""

    tokens: Tensor  # (S L D)
    mask: Tensor | None  # (S L) bool; None: all real
    frame: Tensor  # (S L) int64: the frame a token belongs to; no token may attend to a later frame
    is_action: Tensor  # (S L) bool
    readout: Tensor  # (B T Q) int64: where action tokens lie in the flattened (S L); in its order, as many in each of S


@dataclass(frozen=True)
class Batch:
    """What a policy sees and, in training, what it should have done. Every tensor is batch first."""

    images: Mapping[str, Tensor]  # {camera: (B T C Y X) uint8}
    instructions: Sequence[str]  # B
    text_ids: Tensor  # (B N) int64: the instructions as the text encoder tokenised them
    text_mask: Tensor | None  # (B N) bool; None: no padding
    proprio: Tensor | None  # (B T P) float32, normalised
    actions: Tensor | None = None  # (B T H A) float32, normalised; binary dimensions in {0, 1}
    action_mask: Tensor | None = None  # (B T H A) bool: False past an episode's end, and for what its robot lacks
    episodes: Sequence[str] = ()  # B: where each sample comes from
    # {feature: (B T *shape)}, in the numbers of the store
    features: Mapping[str, Tensor] = field(default_factory=dict)
    # {camera or feature that some samples lack: (B) bool}; those that are not here, every sample has
    present: Mapping[str, Tensor] = field(default_factory=dict)
    embodiment: Tensor | None = None  # (B) int64: which of the recipe's stores a sample comes from

    def to(self, where: device) -> Self:
        """Copy every tensor to a device, without waiting for it."""
        moved: dict[str, Any] = {}
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                moved[name] = value.to(where, non_blocking=True)
            elif isinstance(value, Mapping):
                moved[name] = {key: x.to(where, non_blocking=True) for key, x in value.items()}
        return replace(self, **moved)


@dataclass(frozen=True)
class ActionSpec:
    """What a policy head must produce: (B T H A), and what the normalised dimensions are like."""

    window: int  # T
    horizon: int  # H
    dim: int  # A
    binary: tuple[int, ...] = ()  # dimensions in {0, 1}, a two-state gripper for example; the others are continuous
    bounded: bool = True  # the continuous dimensions lie in [-1, 1]

    @property
    def continuous(self) -> tuple[int, ...]:
        """The dimensions that are regressed."""
        return tuple(i for i in range(self.dim) if i not in self.binary)


# ---------------------------------------------------------------------------------------------- the five parts


class VisionEncoder(nn.Module, ABC):
    """Images -> tokens per frame. Built as `build(config, *, cameras: {name: (C, Y, X)}, text_width: int)`.

    cameras: names, in the order in which their tokens come.
    separates_cameras: tokens come camera after camera, as many of each, and see no other camera's image. So core can
    hide those of a camera that a sample lacks; an encoder that mixes cameras says False.
    """

    width: int
    cameras: Sequence[str]
    separates_cameras: bool = True

    @abstractmethod
    def forward(self, images: Mapping[str, Tensor], text: TokenGroup) -> TokenGroup:
        """{camera: (B T C Y X) uint8}, text (B M text_width) for those that condition on it -> (B T N width)."""


class TextEncoder(nn.Module, ABC):
    """Instructions -> tokens. Built as `build(config)`."""

    width: int
    prefix: int = 0  # leading tokens of every instruction that stand before the images: a begin-of-sentence token

    @abstractmethod
    def tokenize(self, instruction: str) -> Sequence[int]:
        """Token ids of one instruction; core calls it once per distinct instruction, off the training thread."""

    @abstractmethod
    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """ids (B N) int64, mask (B N) bool -> (B N width)."""


class Backbone(nn.Module, ABC):
    """Mixes the sequence. Built as `build(config)`."""

    width: int

    @abstractmethod
    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> hidden states (S L width); no token attends to a later frame or to padding."""

    def read(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> readout (B T Q width): hidden states of the action tokens, all that a policy asks for."""
        hidden: Tensor = self(sequence)
        return hidden.flatten(0, 1)[sequence.readout]


class ActionTokens(nn.Module, ABC):
    """Owns the formulation: how vision, text and action tokens form sequences, and where actions are read.

    Built as `build(config, *, width: int, window: int, proprio_dim: int, text_prefix: int)`.
    """

    context: int = 1  # frames that one sequence spans: so many are kept when acting frame by frame

    @abstractmethod
    def layout(self, vision: TokenGroup, text: TokenGroup, proprio: Tensor | None) -> TokenSequence:
        """vision (B T N D), text (B M D), proprio (B T P) -> sequences with the action tokens in place."""


class PolicyHead(nn.Module, ABC):
    """Readout -> actions. Built as `build(config, *, width: int, action: ActionSpec)`."""

    @abstractmethod
    def forward(self, readout: Tensor) -> Tensor:
        """(B T Q D) -> actions (B T H A), normalised, for every frame of the window."""

    @abstractmethod
    def loss(self, readout: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return named scalar terms; their sum is what training minimises."""

    def step(self, readout: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One frame (B Q D) and the last state (None at reset) -> actions (B H A) and the next state."""
        return self(readout.unsqueeze(1)).squeeze(1), state


# ---------------------------------------------------------------------------------------------- weights of others


@runtime_checkable
class Loadable(Protocol):
    """A part that can start from published weights: what the recipe's `pretrained` asks for."""

    source: str | None  # what `pretrained = true` stands for; None where it stands for nothing

    def load_pretrained(self, weights: "Pretrained") -> None:
        """Take the part's share, strictly; raise RecipeError that lists whatever does not fit.

        Parameters that no source has are listed in `own`, if there are any.
        """


@runtime_checkable
class Publishable(Protocol):
    """A part that can be written back in the layout in which its weights were published."""

    def publish(self) -> dict[str, Tensor]:
        """The part's tensors under their published names."""

    def describe(self) -> dict[str, Any]:
        """The part's share of the published config.json."""
