"""Contexts and generators for tests of heads that read nothing but the readout."""

import torch
from torch import Tensor

from core import Context, Generator


def context_from(readout: Tensor) -> Context:
    """A context of a readout (B T Q D), each frame a sequence of its own."""
    return Context(readout, torch.zeros(readout.shape[:2], dtype=torch.int64))


def noise(seed: int = 0) -> Generator:
    """A fresh generator, the same numbers for the same seed."""
    return Generator.shared((seed,), torch.device("cpu"))
