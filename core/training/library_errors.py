"""Turns errors of torch that come without a line of anybody's code into a line that helps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.errors import ConfigError, TrainingError

# {beginning of torch's message: what it means here, and what to do}
MEANINGS = {
    "Expected to have finished reduction": (
        "a weight that had a gradient in the first step has none in this one, and the other "
        "processes wait for it: a part uses some of its weights for some batches only; set "
        'train.strategy = "ddp_find_unused_parameters_true"'
    ),
    "one of the variables needed for gradient computation has been modified": (
        "a part changes a tensor in place that the backward pass needs; in its code, write "
        "x = x + y instead of x += y, and torch.where instead of an assignment to x[...]"
    ),
    "Trying to backward through the graph a second time": (
        "a part keeps a tensor with its gradient from an earlier step; in its code, detach what "
        "reaches from one call to the next"
    ),
}


@contextmanager
def library_errors_in_one_line() -> Iterator[None]:
    """Raise ConfigError for memory that does not suffice, and TrainingError for MEANINGS."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"train.batch_size: out of memory ({' '.join(str(error).split())[:120]} ...); lower "
            "it, raise train.accumulation, or set gradient_checkpointing for the largest part"
        ) from error
    except RuntimeError as error:
        for beginning, meaning in MEANINGS.items():
            if str(error).startswith(beginning):
                raise TrainingError(meaning) from error
        raise
