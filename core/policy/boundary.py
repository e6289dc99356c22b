"""The policy's boundary: it calls each part, and checks what the part returns.

A part may be anybody's plugin. PyTorch stretches a tensor of another shape by broadcasting, so
without these checks a policy would train on it, or move a robot by it. The checks stand outside of
the parts, and read types, names, shapes and dtypes alone. The CPU knows these without waiting for
the device, so a check costs about a microsecond. Whether numbers are finite is checked where the
numbers are read anyway: losses by core/training/reporting.py, errors by
core/training/validation.py, and actions by core/rollout/actor.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from core.contracts.batch import Batch, Memory, PastActions, State, TokenGroup, TokenSequence
from core.contracts.context import Context
from core.contracts.generator import Generator
from core.contracts.parts import (
    ActionSpec,
    ActionTokens,
    Backbone,
    PolicyHead,
    TextEncoder,
    VisionEncoder,
)
from core.errors import PolicyError

REMEDY = "mend the plugin, or take another version of it"

# sizes of a tensor; None stands for any size
Shape = tuple[int | None, ...]

FLOAT, BOOL, INT64 = "floating point", "bool", "int64"
# dtype of the labels of a sequence's tokens (S L)
LABELS = {"mask": BOOL, "frame": INT64, "kind": INT64, "block": INT64, "private": BOOL}
MANDATORY_LABELS = ("frame", "kind")
# what the metrics of a step call something else than a term of the loss
RESERVED_TERMS = frozenset({"total", "loss", "step", "gradient_norm", "learning_rate_factor"})


@dataclass(frozen=True)
class Boundary:
    """Calls the parts of one policy, and checks what they return.

    Every method raises PolicyError if the part breaks its contract; the message names the part, its
    plugin, what it returned and what is right.

    components: {part: "'name' of plugin 'module' (package version)"}. A part is a kind of part or
        "auxiliary/<label>".
    action: what heads must produce; None: chunks of any length and any number of dimensions.
    """

    components: Mapping[str, str] = field(default_factory=dict)
    action: ActionSpec | None = None

    def name(self, part: str) -> str:
        """Return what messages call a part."""
        return f"{part} {self.components[part]}" if part in self.components else part

    # ------------------------------------------------------------------------------------ encoders

    def encode_text(self, encoder: TextEncoder, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """Ids (B N) int64, mask (B N) bool -> (B M width)."""
        text = encoder(ids, mask)
        call = _Call(self.name("text_encoder"), "forward")
        shape = (len(ids), None, encoder.width)
        return call.check_group(text, "tokens (B N D)", shape, encoder)

    def encode_images(
        self, encoder: VisionEncoder, images: Mapping[str, Tensor], text: TokenGroup
    ) -> TokenGroup:
        """Images and features {name: (B T ...)}, text (B M text_width) -> (B T N width)."""
        vision = encoder(images, text)
        call = _Call(self.name("vision_encoder"), "forward")
        batch_and_window = next((x.shape[:2] for x in images.values()), (len(text.tokens), None))
        shape = (*batch_and_window, None, encoder.width)
        group = call.check_group(vision, "tokens (B T N D)", shape, encoder)
        count = len(encoder.cameras)
        if encoder.separates_cameras and count and group.tokens.shape[2] % count:
            call.fail(
                f"{group.tokens.shape[2]} tokens per frame",
                f"the same number of tokens for each of {count} cameras; an encoder that mixes "
                "cameras sets separates_cameras = False",
            )
        return group

    # --------------------------------------------------------------------- action tokens, backbone

    def lay_out(
        self,
        tokens: ActionTokens,
        width: int,
        vision: TokenGroup,
        text: TokenGroup,
        proprio: Tensor | None,
        past: PastActions | None,
        batch: Batch | None,
        generator: Generator,
    ) -> TokenSequence:
        """Vision (B T N D), text (B M D), proprio (B T P) -> sequences (S L D).

        width: D, the width of the backbone.
        """
        layout: Any = tokens.layout  # of which most take no past actions
        further = {"past": past} if tokens.reads_past else {}
        sequence: TokenSequence = layout(vision, text, proprio, batch, generator, **further)
        call = _Call(self.name("action_tokens"), "layout")
        call.check_type(sequence, TokenSequence)
        rows, window = vision.tokens.shape[:2]
        call.check(sequence.tokens, "tokens (S L D)", (None, None, width))
        if len(sequence.tokens) not in (rows, rows * window):
            call.fail(
                f"{len(sequence.tokens)} sequences",
                f"S = B = {rows} sequences, or S = B T = {rows * window}",
            )
        size = sequence.tokens.shape[:2]
        for name, dtype in LABELS.items():
            label = getattr(sequence, name)
            if label is not None or name in MANDATORY_LABELS:
                call.check(label, f"{name} (S L)", size, dtype)
        if sequence.grid is not None:
            call.check(sequence.grid, "grid (S L 2)", (*size, 2), INT64)
        if sequence.position_embedding is not None:
            embedding = sequence.position_embedding
            call.check(embedding, "position_embedding (S L D)", (*size, width))
        call.check(sequence.readout, "readout (B T Q)", (rows, window, tokens.count), INT64)
        call.check_terms(sequence.losses, tokens)
        return sequence

    def run(self, backbone: Backbone, sequence: TokenSequence) -> Tensor:
        """Sequences (S L D) -> hidden states (S L D)."""
        hidden = backbone(sequence)
        call = _Call(self.name("backbone"), "forward")
        return call.check(hidden, "hidden states (S L D)", tuple(sequence.tokens.shape))

    def read(self, backbone: Backbone, sequence: TokenSequence) -> Tensor:
        """Sequences (S L D) -> hidden states of the action tokens (B T Q D)."""
        readout = backbone.read(sequence)
        call = _Call(self.name("backbone"), "read")
        shape = (*sequence.readout.shape, backbone.width)
        return call.check(readout, "hidden states (B T Q D)", shape)

    def remember(
        self, backbone: Backbone, sequence: TokenSequence, past: Memory | None = None
    ) -> Memory:
        """Sequences (S L D) after the past -> the memory of both."""
        memory = backbone.remember(sequence, past)
        call = _Call(self.name("backbone"), "remember")
        call.check_type(memory, Memory)
        count, length, width = sequence.tokens.shape
        # with a past, the memory is longer than the sequence
        tokens_of_sequence = length if past is None else None
        call.check(memory.tokens, "tokens (S L D)", (count, tokens_of_sequence, width))
        size = tuple(memory.tokens.shape[:2])
        if "keys_values" in backbone.offers:
            depth = backbone.layer_spec.depth if backbone.layer_spec else len(memory.keys)
            for name, layers in (("keys", memory.keys), ("values", memory.values)):
                if len(layers) != depth:
                    call.fail(f"{len(layers)} layers of {name}", f"{depth} layers")
                for layer in layers:
                    call.check(layer, f"{name} (S K L d)", (size[0], None, size[1], None))
        for layer in memory.hidden_states:
            call.check(layer, "hidden_states (S L D)", (*size, None))
        call.check_state(memory.carry, "carry {name: (S ...)}", count)
        call.check_terms(memory.losses, backbone)
        return memory

    # --------------------------------------------------------------------------------------- heads

    def predict(self, head: PolicyHead, context: Context, generator: Generator) -> Tensor:
        """Context -> the policy head's actions for each frame (B T H A)."""
        actions = head(context, generator)
        call = _Call(self.name("policy_head"), "forward")
        shape = (*context.frame.shape, *self._chunk)
        return call.check(actions, "actions (B T H A)", shape)

    def act(
        self, head: PolicyHead, context: Context, state: State, generator: Generator
    ) -> tuple[Tensor, State]:
        """Context of one new frame, state of the policy head -> actions (B H A), next state."""
        result = head.act(context, state, generator)
        call = _Call(self.name("policy_head"), "act")
        rows = len(context.frame)
        if not isinstance(result, tuple) or len(result) != 2:
            call.fail(_describe(result), "a tuple of actions (B H A) and the next state")
        actions, next_state = result
        call.check(actions, "actions (B H A)", (rows, *self._chunk))
        call.check_state(next_state, "the next state {name: (B ...)}", rows, like=state)
        return actions, next_state

    def loss(
        self, part: str, head: PolicyHead, context: Context, batch: Batch, generator: Generator
    ) -> dict[str, Tensor]:
        """Return the loss terms of a head; `part` is "policy_head" or "auxiliary/<label>"."""
        call = _Call(self.name(part), "loss")
        try:
            terms = head.loss(context, batch, generator)
        except PolicyError as error:  # of a masked loss, which does not know the head
            raise PolicyError(f"{call.part}: loss: {error}; {REMEDY}") from None
        if not isinstance(terms, Mapping) or not terms:
            call.fail(_describe(terms), "a dict with at least one term {name: scalar}")
        call.check_terms(terms, head)
        for name in terms:
            if name in RESERVED_TERMS or "/" in name:
                taken = ", ".join(sorted(RESERVED_TERMS))
                call.fail(f"a term named '{name}'", f"a name without a slash, and none of {taken}")
        return dict(terms)

    def next_state(self, head: PolicyHead, context: Context) -> State:
        """Return the policy head's state after the windows (B ...)."""
        state: State = head.next_state(context)
        call = _Call(self.name("policy_head"), "next_state")
        call.check_state(state, "{name: (B ...)}", len(context.frame), like=context.state)
        return state

    def validation_error(
        self, head: PolicyHead, context: Context, batch: Batch, generator: Generator
    ) -> Tensor | None:
        """Return the policy head's own error of each sample (B), or None if it has none."""
        error = head.validation_error(context, batch, generator)
        call = _Call(self.name("policy_head"), "validation_error")
        if error is None:
            return None
        return call.check(error, "an error for each sample (B)", (len(batch.episodes),))

    @property
    def _chunk(self) -> Shape:
        """The shape (H A) of an action chunk."""
        return (None, None) if self.action is None else (self.action.horizon, self.action.dim)


@dataclass(frozen=True)
class _Call:
    """One call of a part, whose result is checked.

    part: what messages call the part.
    """

    part: str
    method: str

    def fail(self, received: str, expected: str) -> NoReturn:
        """Raise PolicyError: the part returned `received`, and its contract asks for another."""
        raise PolicyError(
            f"{self.part}: {self.method} returned {received}; "
            f"its contract asks for {expected}; {REMEDY}"
        )

    def check_type(self, x: Any, expected: type) -> None:
        """Check that the part returned an instance of a class."""
        if not isinstance(x, expected):
            self.fail(_describe(x), f"a {expected.__name__}")

    def check(self, x: Any, what: str, shape: Shape, dtype: str = FLOAT) -> Tensor:
        """Check a tensor's shape and dtype, and return the tensor.

        what: what the tensor is, with the letters of its shape, such as "actions (B H A)".
        """
        if isinstance(x, Tensor) and _fits(x.shape, shape) and _IS_OF[dtype](x):
            return x
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        if len(shape) == 1:
            sizes += ","
        self.fail(_describe(x), f"{what} = ({sizes}), {dtype}")

    def check_group(self, group: Any, what: str, shape: Shape, encoder: nn.Module) -> TokenGroup:
        """Check an encoder's tokens, mask, grid and losses, and return the group."""
        self.check_type(group, TokenGroup)
        assert isinstance(group, TokenGroup)
        self.check(group.tokens, what, shape)
        size = tuple(group.tokens.shape[:-1])
        if group.mask is not None:
            self.check(group.mask, f"the mask of {what}", size, BOOL)
        if group.grid is not None:
            self.check(group.grid, f"the grid (N 2) of {what}", (size[-1], 2), INT64)
        self.check_terms(group.losses, encoder)
        return group

    def check_terms(self, terms: Any, owner: nn.Module) -> None:
        """Check terms of the loss: named scalars, with a gradient if their owner trains."""
        if not isinstance(terms, Mapping):
            self.fail(_describe(terms), "losses {name: scalar}")
        for name, term in terms.items():
            if not isinstance(name, str):
                self.fail(f"a term named {name!r}", "names that are texts")
            self.check(term, f"a scalar as term '{name}'", ())
            if term.requires_grad or not (torch.is_grad_enabled() and owner.training):
                continue
            if any(parameter.requires_grad for parameter in owner.parameters()):
                self.fail(
                    f"a term '{name}' without a gradient",
                    "a term that trains; if a batch has nothing to learn from, return "
                    "0 * output.sum()",
                )

    def check_state(self, state: Any, what: str, rows: int, like: State | None = None) -> None:
        """Check that a state is tensors with one row each, and as the state before.

        like: the state before; its names and sizes must stay the same.
        """
        if not isinstance(state, Mapping):
            self.fail(_describe(state), what)
        if like is not None and state.keys() != like.keys():
            self.fail(
                f"a state of {', '.join(state) or 'nothing'}",
                f"{what} with the names of initial_state: {', '.join(like) or 'none'}",
            )
        for name, x in state.items():
            if not isinstance(x, Tensor) or x.ndim == 0 or len(x) != rows:
                self.fail(f"'{name}', {_describe(x)}", f"{what} with {rows} rows")
            if like is not None and x.shape != like[name].shape:
                self.fail(
                    f"'{name}', {_describe(x)}", f"the shape that it had, {_sizes(like[name])}"
                )


_IS_OF: Mapping[str, Callable[[Tensor], bool]] = {
    FLOAT: Tensor.is_floating_point,
    BOOL: lambda x: x.dtype == torch.bool,
    INT64: lambda x: x.dtype == torch.int64,
}


def _fits(sizes: tuple[int, ...], shape: Shape) -> bool:
    """Whether a tensor's sizes are those of `shape`."""
    return len(sizes) == len(shape) and all(
        expected in (None, size) for size, expected in zip(sizes, shape, strict=True)
    )


def _describe(x: Any) -> str:
    """Say what a part returned: dtype and shape of a tensor, or the type of anything else."""
    if isinstance(x, Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {_sizes(x)}"
    if x is None:
        return "nothing"
    if isinstance(x, Mapping) and not x:
        return "an empty dict"
    return f"an object of type {type(x).__name__}"


def _sizes(x: Tensor) -> str:
    return str(tuple(x.shape))
