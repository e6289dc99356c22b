"""SIGTERM or SIGINT ends a run after the current step, with a checkpoint.

A second signal of the same kind ends the run at once.
"""

import signal
from types import FrameType
from typing import Any, Self

import torch
from lightning_fabric import Fabric


class StopSignal:
    """Remembers whether a stop signal has come.

    Use it as a context manager. After the `with` block, signals act as before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.previous = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def requested(self, fabric: Fabric, ask: bool) -> bool:
        """Return whether the run must stop now; all processes of a run stop after the same step.

        ask: in a run of several processes, whether to ask all of them for stop signals; asking
            waits for the device. If `ask` is false, such a run continues.
        """
        if fabric.world_size == 1:
            return self.received is not None
        if not ask:
            return False
        number = torch.tensor(float(self.received or 0), device=fabric.device)
        self.received = int(torch.as_tensor(fabric.all_reduce(number, reduce_op="max"))) or None
        return self.received is not None

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = number
        # a second signal of the same kind then acts as if this class did not exist
        signal.signal(number, self.previous[number])
