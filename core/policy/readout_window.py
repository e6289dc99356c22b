"""The memory of heads that run the window's readouts anew at every step of acting."""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.contracts.batch import State
from core.policy.state import push_frame


@dataclass(frozen=True)
class ReadoutWindow:
    """The readouts of the last T frames, as the state of a head; they are what training computes.

    window: T.
    width: D.
    """

    window: int
    width: int

    def empty(self, rows: int, like: Tensor) -> State:
        """Return the state before the first frame; `like` has the wanted dtype and device.

        It holds "readouts" (B T D), and in "count" (B) how many of them are filled.
        """
        return {
            "readouts": like.new_zeros(rows, self.window, self.width),
            "count": torch.zeros(rows, dtype=torch.int64, device=like.device),
        }

    def push(self, state: State, readout: Tensor) -> State:
        """Add a frame's readout (B 1 D); a row that is full drops its oldest frame."""
        return {
            "readouts": push_frame(state["readouts"], state["count"], readout),
            "count": state["count"].clamp(max=self.window - 1) + 1,
        }

    def newest(self, state: State, x: Tensor) -> Tensor:
        """Return the newest frame of x (B T ...), which a head made from the readouts -> (B ...).

        The frames after it come from readouts that are not filled, and mean nothing.
        """
        rows = torch.arange(len(x), device=x.device)
        return x[rows, state["count"] - 1]
