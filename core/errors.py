"""What Joinery says when something is wrong: one line per mistake (what, where, what to do), never
a traceback.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class JoineryError(Exception):
    """A mistake that its reader can mend; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class ConfigError(JoineryError):
    """All mistakes of one recipe, one line each."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[str] | str) -> None:
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        super().__init__("\n".join(self.mistakes))


class PluginError(JoineryError):
    """Two plugins claim one name."""


class DataError(JoineryError):
    """An episode, a store or a source of data is missing, damaged or contradicts itself."""


class CheckpointError(JoineryError):
    """A checkpoint is missing, damaged, does not fit the recipe, or cannot be written."""


class TrainingError(JoineryError):
    """Training cannot go on: a loss that is not finite, for example."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or the list of what there is if that
    is short.
    """
    if near := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(sorted(known)) or 'none'}" if len(known) <= 30 else ""
