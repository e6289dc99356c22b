"""Random numbers that are passed as an argument, so that no part draws from a global generator."""

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

# The first number of a stream's key. It gives training and validation different streams.
TRAINING, VALIDATION = 1, 2


class Generator:
    """Random numbers for a batch; the first dimension of every drawn tensor is the rows.

    Training uses `shared`: one stream for all rows, which is fast because it draws on the device.
    Acting uses `by_row`: one stream for each row. A row's numbers then do not depend on the other
    rows.
    """

    def __init__(
        self, device: torch.device, stream: torch.Generator | None, keys: Sequence[tuple[int, int]]
    ) -> None:
        self.device = device
        self._stream = stream
        self._keys = keys

    @classmethod
    def shared(cls, key: Sequence[int], device: torch.device) -> Self:
        """Make one stream on the device, from non-negative numbers such as seed and step."""
        (seed,) = np.random.SeedSequence(key).generate_state(1)
        return cls(device, torch.Generator(device).manual_seed(int(seed)), ())

    @classmethod
    def by_row(cls, keys: Sequence[tuple[int, int]], device: torch.device) -> Self:
        """Make a stream for each row, from two non-negative numbers such as seed and step.

        The numbers are drawn on the CPU, so that they are the same on every device.
        """
        return cls(device, None, keys)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, float32."""
        if self._stream is not None:
            return torch.randn(
                shape, generator=self._stream, device=self.device, dtype=torch.float32
            )
        return self._stack(
            [row.standard_normal(shape[1:], np.float32) for row in self._rows], shape
        )

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers uniform in [0, 1), float32."""
        if self._stream is not None:
            return torch.rand(
                shape, generator=self._stream, device=self.device, dtype=torch.float32
            )
        return self._stack([row.random(shape[1:], np.float32) for row in self._rows], shape)

    @cached_property
    def _rows(self) -> list[np.random.Generator]:
        # Philox computes its numbers directly from the key (Salmon et al. 2011). So each key has
        # its own stream, and no stream needs a warm-up.
        return [
            np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
            for key in self._keys
        ]

    def _stack(self, rows: Sequence[np.ndarray], shape: tuple[int, ...]) -> Tensor:
        if len(rows) != shape[0]:
            raise ValueError(
                f"expected {len(rows)} rows as the first size of a draw, got {shape[0]}; "
                "draw (rows, frames, ...)"
            )
        return torch.from_numpy(np.stack(rows)).to(self.device)
