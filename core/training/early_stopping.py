"""Early stopping: the end of a run whose validation error no longer falls (Prechelt 1998)."""

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Counts validations without a lower error than the lowest before.

    patience: how many of them end the run; 0: none does.
    best: the lowest error so far.
    since: number of validations since then.
    """

    patience: int
    best: float = math.inf
    since: int = 0

    def note(self, error: float) -> None:
        """Count a validation; an error that is not finite is no improvement."""
        if error < self.best:
            self.best, self.since = error, 0
        else:
            self.since += 1

    @property
    def is_due(self) -> bool:
        """Whether the run ends now."""
        return 0 < self.patience <= self.since
