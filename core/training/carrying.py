"""The policy head's state between training steps, if it reaches from one window to the next.

The state is detached after every window, so gradients stay within a window: truncated
backpropagation through time (Williams and Peng 1990).
"""

from collections.abc import Iterator, Sequence

import torch
from lightning_fabric import Fabric

from core.contracts.batch import Batch, State
from core.contracts.parts import PolicyHead


def state_before(head: PolicyHead, carried: State | None, batch: Batch) -> State | None:
    """Return the head's state (B ...) before the windows of a batch.

    A row that begins an episode gets the initial state; any other row gets its carried state.

    carried: the state after the rows' last windows (C ...). If C > B, only the first B rows go on.
        If C < B, all rows begin an episode. None, if every window begins afresh; so is the result.
    """
    if carried is None:
        return None
    assert batch.begins is not None
    rows = len(batch.begins)
    initial = head.initial_state(rows)
    if any(len(tensor) < rows for tensor in carried.values()):
        return initial
    state = {}
    for name, fresh in initial.items():
        begins = batch.begins.view(-1, *[1] * (fresh.ndim - 1))
        state[name] = torch.where(begins, fresh, carried[name][:rows].to(fresh.dtype))
    return state


def gather(fabric: Fabric, carried: Sequence[State | None]) -> State | None:
    """Return the state of all R rows of a step (R ...), from all processes and micro-batches.

    carried: the state of each of this process's micro-batches (B ...). If these are None, so is
        the result. The rows have the order in which `EpisodeStreams` numbers them.
    """
    states = [state for state in carried if state is not None]
    if not states:
        return None
    whole = {}
    for name, first in states[0].items():
        own = torch.stack([state[name] for state in states])  # (micro-batches B ...)
        gathered = torch.as_tensor(fabric.all_gather(own))
        by_process = gathered.reshape(fabric.world_size, *own.shape)
        whole[name] = by_process.transpose(0, 1).reshape(-1, *first.shape[1:])
    return whole


def share_of_process(fabric: Fabric, whole: State, micro_batches: int) -> Iterator[State]:
    """Yield the state of each of this process's micro-batches (B ...); undoes `gather`.

    whole: the state of all R rows of a step (R ...).
    """
    for micro in range(micro_batches):
        yield {
            name: x.reshape(micro_batches, fabric.world_size, -1, *x.shape[1:])[
                micro, fabric.global_rank
            ]
            for name, x in whole.items()
        }
