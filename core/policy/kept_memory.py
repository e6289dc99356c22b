"""Acting on what the backbone remembers: of each row's window only the newest frame is run.

What is kept are tensors (B ...): keys, values and hidden states of every layer for each of the
window's L columns, or the state that a recurrent backbone carries. Which column holds which token
the window's own layout says.
"""

from dataclasses import replace

import torch
from torch import Tensor

from core.contracts.attention import blocks_of
from core.contracts.batch import Memory, State, TokenSequence
from core.contracts.parts import Backbone
from core.contracts.tokens import select_tokens
from core.policy.state import Window


def run_newest_frame(
    backbone: Backbone, sequence: TokenSequence, window: Window, kept: State
) -> tuple[Tensor, Memory, State]:
    """Run each row's newest frame on top of those before -> readout (B 1 Q D), the memory, and what
    to keep of it.

    sequence: of whole windows (B L D). kept: what this returned for the frame before, empty at
    first. Where a full window drops its oldest frames, the others are run again: what their layers
    kept depends on the dropped ones.
    """
    sequence = replace(sequence, block=blocks_of(sequence))
    stale = (window.moved if kept else window.newest > 0).nonzero().flatten()
    if len(stale):
        older = sequence.frame[stale] < window.newest[stale, None]
        earlier, columns = _select(sequence.map_columns(lambda x: x[stale]), older)
        kept = _store(kept, _layers(backbone.remember(earlier)), earlier, columns, stale, sequence)
    frame, columns = _select(sequence, sequence.frame == window.newest[:, None])
    memory = backbone.remember(frame, _past(sequence, window, kept) if kept else None)
    rows = torch.arange(len(columns), device=columns.device)
    count = columns.shape[1]
    new = {name: x.narrow(-2, x.shape[-2] - count, count) for name, x in _layers(memory).items()}
    kept = _store(kept, new, frame, columns, rows, sequence)
    return _readout(memory, sequence, window, columns), memory, kept


def carry_newest_frame(
    backbone: Backbone, sequence: TokenSequence, window: Window, kept: State
) -> tuple[Tensor, Memory, State]:
    """As `run_newest_frame`, of a backbone that carries a state of its own: in constant time, over
    any history.
    """
    frame, columns = _select(sequence, sequence.frame == window.newest[:, None])
    past = None
    if kept:
        carry = {
            name: x.masked_fill(window.began.view(-1, *[1] * (x.ndim - 1)), 0)
            for name, x in kept.items()
        }
        past = Memory(frame, frame.tokens, carry=carry)
    memory = backbone.remember(frame, past)
    return _readout(memory, sequence, window, columns), memory, memory.carry


def _select(sequence: TokenSequence, chosen: Tensor) -> tuple[TokenSequence, Tensor]:
    """The chosen tokens (S L) alone, first in each sequence -> (S M), and the column that each came
    from (S M).
    """
    if sequence.mask is not None:
        chosen = chosen & sequence.mask
    columns = (~chosen).long().argsort(dim=1, stable=True)[:, : int(chosen.sum(dim=1).max())]
    taken = sequence.map_columns(lambda x: select_tokens(x, columns))
    return replace(taken, mask=chosen.gather(1, columns)), columns


def _past(sequence: TokenSequence, window: Window, kept: State) -> Memory:
    """What is kept of the frames before the newest, as the memory of a sequence (B L D)."""
    earlier = sequence.frame < window.newest[:, None]
    kept = _pad_columns(kept, sequence)
    return Memory(
        sequence=replace(
            sequence, mask=earlier if sequence.mask is None else earlier & sequence.mask
        ),
        tokens=kept["tokens"],
        keys=kept["keys"].unbind(1) if "keys" in kept else (),
        values=kept["values"].unbind(1) if "values" in kept else (),
        hidden_states=kept["hidden_states"].unbind(1) if "hidden_states" in kept else (),
    )


def _layers(memory: Memory) -> dict[str, Tensor]:
    """What a memory holds, layers stacked: keys and values (S layers K L d), hidden states (S
    layers L D).
    """
    layers = {"keys": memory.keys, "values": memory.values, "hidden_states": memory.hidden_states}
    return {
        "tokens": memory.tokens,
        **{name: torch.stack(x, dim=1) for name, x in layers.items() if x},
    }


def _pad_columns(kept: State, sequence: TokenSequence) -> State:
    """Make what is kept as long as the window, which is padded to its longest neighbour's
    instruction.
    """
    missing = sequence.frame.shape[1] - kept["tokens"].shape[-2]
    return {name: torch.nn.functional.pad(x, (0, 0, 0, missing)) for name, x in kept.items()}


def _store(
    kept: State,
    new: State,
    part: TokenSequence,
    columns: Tensor,
    rows: Tensor,
    sequence: TokenSequence,
) -> State:
    """Put what was made of a part of the window, new (R ... M d), into its columns (R M) of the
    rows (R).
    """
    count, length = sequence.frame.shape
    if not kept:
        kept = {
            name: x.new_zeros(count, *x.shape[1:-2], length, x.shape[-1]) for name, x in new.items()
        }
    stored = {}
    for name, x in _pad_columns(kept, sequence).items():
        shape = [len(rows)] + [1] * (x.ndim - 3) + [columns.shape[1], 1]
        index = columns.view(shape).expand_as(new[name])
        before = x[rows].gather(-2, index)
        value = (
            new[name]
            if part.mask is None
            else torch.where(part.mask.view(shape), new[name], before)
        )
        stored[name] = x.index_copy(0, rows, x[rows].scatter(-2, index, value.to(x.dtype)))
    return stored


def _readout(memory: Memory, sequence: TokenSequence, window: Window, columns: Tensor) -> Tensor:
    """Hidden states (B 1 Q D) of the newest frame's action tokens, whose frame is the last that was
    run.
    """
    rows = torch.arange(len(columns), device=columns.device)
    places = (
        sequence.readout[rows, window.newest] % sequence.frame.shape[1] - columns[:, :1]
    )  # (B Q)
    hidden = memory.tokens[:, -columns.shape[1] :]
    return hidden[rows[:, None], places].unsqueeze(1)
