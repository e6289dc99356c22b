"""Runs the backbone on each row's newest frame only, with a cache of earlier results.

The cache is a mapping of tensors (B ...). For a recurrent backbone, it holds the backbone's state.
For any other backbone, it holds a column for each of the window's L tokens: the backbone's output,
every layer's keys and values, and the hidden states if the policy head reads them.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from core.contracts.attention import blocks_of
from core.contracts.batch import Memory, State, TokenSequence
from core.contracts.tokens import select_tokens
from core.policy.state import Window

# `Backbone.remember`: runs sequences after a past, if any -> the memory of both
Remember = Callable[[TokenSequence, Memory | None], Memory]


def run_newest_frame(
    remember: Remember, sequence: TokenSequence, window: Window, cache: State
) -> tuple[Tensor, Memory, State]:
    """Run each row's newest frame; return the readout (B 1 Q D), the memory and the next cache.

    sequence: the tokens of whole windows (B L D).
    cache: the cache that this function returned for the previous frame; empty at first.

    If the cache is empty, a row's earlier frames are run, too. If a full window has dropped its
    oldest frames, the remaining frames are run again, because their cached layers depend on the
    dropped frames.
    """
    sequence = replace(sequence, block=blocks_of(sequence))
    stale = (window.is_shifted if cache else window.newest > 0).nonzero().flatten()  # rows
    if len(stale):
        is_earlier = sequence.frame[stale] < window.newest[stale, None]
        earlier, columns = _select(sequence.map_columns(lambda x: x[stale]), is_earlier)
        layers = _stack_layers(remember(earlier, None))
        cache = _update(cache, layers, earlier, columns, stale, sequence)
    frame, columns = _select(sequence, sequence.frame == window.newest[:, None])
    memory = remember(frame, _as_memory(cache, sequence, window) if cache else None)
    rows = torch.arange(len(columns), device=columns.device)
    count = columns.shape[1]
    layers = {
        name: x.narrow(-2, x.shape[-2] - count, count) for name, x in _stack_layers(memory).items()
    }
    cache = _update(cache, layers, frame, columns, rows, sequence)
    return _readout(memory, sequence, window, columns), memory, cache


def carry_newest_frame(
    remember: Remember, sequence: TokenSequence, window: Window, cache: State
) -> tuple[Tensor, Memory, State]:
    """Do what `run_newest_frame` does, but with a recurrent backbone, in constant time."""
    frame, columns = _select(sequence, sequence.frame == window.newest[:, None])
    past = None
    if cache:
        carry = {
            name: x.masked_fill(window.is_first.view(-1, *[1] * (x.ndim - 1)), 0)
            for name, x in cache.items()
        }
        past = Memory(frame, frame.tokens, carry=carry)
    memory = remember(frame, past)
    return _readout(memory, sequence, window, columns), memory, memory.carry


def _select(sequence: TokenSequence, chosen: Tensor) -> tuple[TokenSequence, Tensor]:
    """Return the tokens (S M) that `chosen` (S L) bool selects, and their former columns (S M)."""
    if sequence.mask is not None:
        chosen = chosen & sequence.mask
    columns = (~chosen).long().argsort(dim=1, stable=True)[:, : int(chosen.sum(dim=1).max())]
    selection = sequence.map_columns(lambda x: select_tokens(x, columns))
    return replace(selection, mask=chosen.gather(1, columns)), columns


def _as_memory(cache: State, sequence: TokenSequence, window: Window) -> Memory:
    """Return the cache as a memory (B L D) in which only frames before the newest are visible."""
    earlier = sequence.frame < window.newest[:, None]
    cache = _pad_columns(cache, sequence)
    return Memory(
        sequence=replace(
            sequence, mask=earlier if sequence.mask is None else earlier & sequence.mask
        ),
        tokens=cache["tokens"],
        keys=cache["keys"].unbind(1) if "keys" in cache else (),
        values=cache["values"].unbind(1) if "values" in cache else (),
        hidden_states=cache["hidden_states"].unbind(1) if "hidden_states" in cache else (),
    )


def _stack_layers(memory: Memory) -> dict[str, Tensor]:
    """Stack keys and values (S layers K L d) and hidden states (S layers L D) of a memory."""
    layers = {"keys": memory.keys, "values": memory.values, "hidden_states": memory.hidden_states}
    stacked = {name: torch.stack(x, dim=1) for name, x in layers.items() if x}
    return {"tokens": memory.tokens, **stacked}


def _pad_columns(cache: State, sequence: TokenSequence) -> State:
    """Pad the cache to the window's length; a longer instruction makes the window longer."""
    missing = sequence.frame.shape[1] - cache["tokens"].shape[-2]
    return {name: torch.nn.functional.pad(x, (0, 0, 0, missing)) for name, x in cache.items()}


def _update(
    cache: State,
    layers: State,
    tokens: TokenSequence,
    columns: Tensor,
    rows: Tensor,
    sequence: TokenSequence,
) -> State:
    """Store in the cache the layers of the tokens that were just run.

    layers: (R ... M d), the layers of `tokens`.
    tokens: (R M); the layers of masked tokens are not written.
    columns: (R M), the column of each token in its window.
    rows: (R), the row of the batch to which each sequence of tokens belongs.
    sequence: the tokens of whole windows (B L).
    """
    count, length = sequence.frame.shape
    if not cache:
        cache = {
            name: x.new_zeros(count, *x.shape[1:-2], length, x.shape[-1])
            for name, x in layers.items()
        }
    result = {}
    for name, x in _pad_columns(cache, sequence).items():
        shape = [len(rows)] + [1] * (x.ndim - 3) + [columns.shape[1], 1]
        index = columns.view(shape).expand_as(layers[name])
        values = layers[name]
        if tokens.mask is not None:
            values = torch.where(tokens.mask.view(shape), values, x[rows].gather(-2, index))
        result[name] = x.index_copy(0, rows, x[rows].scatter(-2, index, values.to(x.dtype)))
    return result


def _readout(memory: Memory, sequence: TokenSequence, window: Window, columns: Tensor) -> Tensor:
    """Return the hidden states (B 1 Q D) of the newest frame's action tokens.

    columns: (B M), the columns of the newest frame's tokens in the window. The newest frame was run
        last, so its tokens are the last M of the memory.
    """
    rows = torch.arange(len(columns), device=columns.device)
    column = sequence.readout[rows, window.newest] % sequence.frame.shape[1]
    index = column - columns[:, :1]  # (B Q)
    hidden = memory.tokens[:, -columns.shape[1] :]
    return hidden[rows[:, None], index].unsqueeze(1)
