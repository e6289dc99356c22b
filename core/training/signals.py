"""SIGTERM and SIGINT end a run after its step, with a checkpoint; a second one ends it at once."""

import signal
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric


class StopSignal:
    """Remembers a signal to stop. Use as a context manager; afterwards signals act as before."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        self.previous = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def requested(self, fabric: Fabric, ask: bool) -> bool:
        """Return whether to stop now; all processes of a run stop after the same step.

        ask: whether to ask the other processes whether to stop; asking waits for the device. If
            false, a run of several processes goes on.
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
        signal.signal(number, self.previous[number])  # a second signal acts as before
