"""What a policy remembers between two steps of its rows: tensors whose rows begin, go on and end on
their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from core.contracts.batch import State, TokenGroup
from core.contracts.tokens import full_mask


@dataclass(frozen=True)
class PolicyState:
    """The state of B rows, each an episode of its own.

    seed, step (B) int64, on the CPU: which episode a row is in, and how many steps it made; noise
    follows from both. history: the frames that a sequence spans, as `add_frame` keeps them; empty
    before the first step.
    head: what the policy head remembers.
    memory: what the backbone keeps of the frames, where it can; none of it counts for a row whose
    history is empty.
    """

    seed: Tensor
    step: Tensor
    history: State
    head: State
    memory: State

    @property
    def keys(self) -> Sequence[tuple[int, int]]:
        """Seed and step of each row, from which its random numbers follow."""
        return list(zip(self.seed.tolist(), self.step.tolist(), strict=True))

    def reset(self, rows: Tensor, initial: Self) -> Self:
        """Take rows (B) bool from an initial state, and leave the others as they are."""
        emptied = {
            name: x.masked_fill(rows.to(x.device), 0)
            for name, x in self.history.items()
            if name == "count"
        }
        return replace(
            self,
            seed=torch.where(rows, initial.seed, self.seed),
            step=torch.where(rows, initial.step, self.step),
            history={**self.history, **emptied},
            head={name: _choose_rows(rows, initial.head[name], x) for name, x in self.head.items()},
        )


@dataclass(frozen=True)
class Window:
    """The C frames that each row's sequence spans; those behind the newest hold arbitrary values.

    No frame sees a later one, so they do not matter.

    vision (B C N D), proprio (B C P).
    newest (B) int64: the newest frame's place.
    began, moved (B) bool: the newest is the row's first frame; older frames were dropped to make
    room for it.
    history: what the next frame is added to.
    """

    vision: TokenGroup
    proprio: Tensor | None
    newest: Tensor
    began: Tensor
    moved: Tensor
    history: State


def add_frame(
    history: State, vision: TokenGroup, proprio: Tensor | None, context: int, keep: int
) -> Window:
    """Add a frame, vision (B 1 N D) and proprioception (B 1 P), to those before it.

    history: of the `Window` before; empty at first. context: frames that a sequence spans (C).
    keep: frames that stay where a row has C already.
    """
    new = {"tokens": vision.tokens}
    new |= (
        {} if vision.mask is None and context == 1 else {"mask": full_mask(vision)}
    )  # it may come and go
    new |= {} if proprio is None else {"proprio": proprio}
    rows = len(vision.tokens)
    if not history:
        empty = {name: x.new_zeros(rows, context, *x.shape[2:]) for name, x in new.items()}
        history = {
            **empty,
            "count": torch.zeros(rows, dtype=torch.int64, device=vision.tokens.device),
        }
    count = history["count"]
    kept = {name: push_frame(history[name], count, x, keep) for name, x in new.items()}
    newest = torch.where(count == context, keep, count)
    return Window(
        vision=replace(vision, tokens=kept["tokens"], mask=kept.get("mask")),
        proprio=kept.get("proprio"),
        newest=newest,
        began=count == 0,
        moved=count == context,
        history={**kept, "count": newest + 1},
    )


def push_frame(kept: Tensor, count: Tensor, new: Tensor, keep: int | None = None) -> Tensor:
    """Put a frame (B 1 ...) behind the first `count` (B) of those kept (B C ...).

    Where a row is full, its last `keep` frames stay and move to the front; all but the oldest
    unless said. So the frame's place is `count`, or `keep` where that was C.
    """
    room = kept.shape[1]
    keep = room - 1 if keep is None else keep
    full, shape = count == room, [-1] + [1] * (kept.ndim - 1)
    place = torch.where(full, keep, count).view(shape)
    moved = torch.where(full.view(shape), kept.roll(keep - room, dims=1), kept)
    return moved.scatter(1, place.expand_as(new), new.to(kept.dtype))


def _choose_rows(rows: Tensor, initial: Tensor, current: Tensor) -> Tensor:
    """(B ...): initial where rows (B) say so, else current."""
    return torch.where(
        rows.to(initial.device).view(-1, *[1] * (initial.ndim - 1)), initial, current
    )
