"""Makes the loss of some steps NaN.

    python -m tests.core.training.poison RECIPE ...

runs a recipe in which the loss of step 2 is NaN in the second process alone.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core import run
from core.training import fit
from plugins.heads.lstm import LSTMHead


def poison(patch: pytest.MonkeyPatch, *steps: int, value: float = math.nan) -> None:
    """Multiply the loss of these steps by a value."""
    original_rate, original_loss = fit.set_learning_rate, LSTMHead.loss
    newest = [0]

    def set_learning_rate(optimizer, done, config):
        newest[0] = done + 1
        return original_rate(optimizer, done, config)

    def loss(self, context, batch, generator):
        terms = original_loss(self, context, batch, generator)
        factor = value if newest[0] in steps else 1.0
        return {name: factor * term for name, term in terms.items()}

    patch.setattr(fit, "set_learning_rate", set_learning_rate)
    patch.setattr(LSTMHead, "loss", loss)


@contextmanager
def poisoned(*steps: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, *steps)
        yield


if __name__ == "__main__":
    with poisoned(*([2] if os.environ.get("LOCAL_RANK") == "1" else [])):
        raise SystemExit(run.main())
