"""What a policy remembers between two steps: tensors in which each row is an episode."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from core.contracts.batch import PastActions, State, TokenGroup
from core.contracts.tokens import full_mask


@dataclass(frozen=True)
class PolicyState:
    """The state of B rows, each of which is a separate episode.

    seed: (B) int64, on the CPU; seed and step together determine the noise that the row draws.
    step: (B) int64, on the CPU; number of steps that the row has made in its episode.
    history: the frames that a sequence spans, as `add_frame` returns them; empty before the first
        step.
    head: state of the policy head.
    memory: what the backbone keeps of earlier frames (B ...); a row that starts an episode does not
        use it.
    """

    seed: Tensor
    step: Tensor
    history: State
    head: State
    memory: State

    @property
    def keys(self) -> Sequence[tuple[int, int]]:
        """The seed and step of each row; together they are the key of its random numbers."""
        return list(zip(self.seed.tolist(), self.step.tolist(), strict=True))

    def reset(self, rows: Tensor, initial: Self) -> Self:
        """Return a state in which the chosen rows (B) bool start again, as in `initial`.

        Their frames and their memory become zeros. Attention gives them no weight, but a number
        that is not finite would stay one even with a weight of zero, and end the row's next
        episode, too.
        """

        def is_reset(x: Tensor) -> Tensor:
            return rows.to(x.device).view(-1, *[1] * (x.ndim - 1))

        def emptied(state: State) -> State:
            return {name: x.masked_fill(is_reset(x), 0) for name, x in state.items()}

        return replace(
            self,
            seed=torch.where(rows, initial.seed, self.seed),
            step=torch.where(rows, initial.step, self.step),
            history=emptied(self.history),
            head={
                name: torch.where(is_reset(x), initial.head[name], x)
                for name, x in self.head.items()
            },
            memory=emptied(self.memory),
        )


@dataclass(frozen=True)
class Window:
    """The C frames that each row's sequence spans; C is `ActionTokens.context`.

    Frames after the newest one hold arbitrary values. These values do not matter, because no frame
    sees a later frame.

    vision: (B C N D), the projected images.
    proprio: (B C P).
    past: (B C A), the actions that were executed before the frames.
    newest: (B) int64, index of the newest frame among the C frames.
    is_first: (B) bool, whether the newest frame is the first of its episode.
    is_shifted: (B) bool, whether old frames were dropped to make room for the newest frame.
    history: the frames to which `add_frame` adds the next one.
    """

    vision: TokenGroup
    proprio: Tensor | None
    past: PastActions | None
    newest: Tensor
    is_first: Tensor
    is_shifted: Tensor
    history: State


def add_frame(
    history: State,
    vision: TokenGroup,
    proprio: Tensor | None,
    context: int,
    keep: int,
    past: PastActions | None = None,
) -> Window:
    """Add a frame to the history: vision (B 1 N D), proprioception (B 1 P), past action (B 1 A).

    history: the `history` of the previous `Window`; empty at first.
    context: number of frames that a sequence spans (C).
    keep: number of latest frames that stay when a frame is added to a full row (C frames).
    """
    frame = {"tokens": vision.tokens}
    if vision.mask is not None or context > 1:
        # Some frames may have a mask and others none, so the history keeps a mask for every frame.
        frame["mask"] = full_mask(vision)
    if proprio is not None:
        frame["proprio"] = proprio
    if past is not None:
        frame |= {"past_actions": past.actions, "past_known": past.known}
    if not history:
        rows, device = len(vision.tokens), vision.tokens.device
        history = {
            **{name: x.new_zeros(rows, context, *x.shape[2:]) for name, x in frame.items()},
            "count": torch.zeros(rows, dtype=torch.int64, device=device),
        }
    count = history["count"]
    frames = {name: push_frame(history[name], count, x, keep) for name, x in frame.items()}
    newest = torch.where(count == context, keep, count)
    return Window(
        vision=replace(vision, tokens=frames["tokens"], mask=frames.get("mask")),
        proprio=frames.get("proprio"),
        past=PastActions(frames["past_actions"], frames["past_known"]) if past else None,
        newest=newest,
        is_first=count == 0,
        is_shifted=count == context,
        history={**frames, "count": newest + 1},
    )


def push_frame(frames: Tensor, count: Tensor, new: Tensor, keep: int | None = None) -> Tensor:
    """Add a new frame (B 1 ...) to the frames (B C ...), of which the first `count` (B) are filled.

    keep: in a row that is full (count is C), the last `keep` frames move to the front, and the new
        frame comes after these frames. The default, C - 1, drops only the oldest frame.
    """
    capacity = frames.shape[1]
    if keep is None:
        keep = capacity - 1
    is_full, shape = count == capacity, [-1] + [1] * (frames.ndim - 1)
    index = torch.where(is_full, keep, count).view(shape)
    frames_before = torch.where(is_full.view(shape), frames.roll(keep - capacity, dims=1), frames)
    return frames_before.scatter(1, index.expand_as(new), new.to(frames.dtype))
