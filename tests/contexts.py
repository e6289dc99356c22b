"""Contexts and generators for tests of heads that read nothing but the readout."""

import torch
from torch import Tensor

from core import Context, Generator


def context_from(readout: Tensor) -> Context:
    """Return a context with a readout (B T Q D), where each frame is a sequence of its own."""
    return Context(readout, torch.zeros(readout.shape[:2], dtype=torch.int64))


def noise(seed: int = 0) -> Generator:
    """Return a new generator, which gives the same numbers for the same seed."""
    return Generator.shared((seed,), torch.device("cpu"))
