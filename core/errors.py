"""Joinery's errors. Each line of a message says what is wrong, where, and how to correct it."""

from collections.abc import Sequence
from difflib import get_close_matches


class JoineryError(Exception):
    """A mistake that a user can fix; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class ConfigError(JoineryError):
    """All mistakes found in a recipe, or in other settings, one line each."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[str] | str) -> None:
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        super().__init__("\n".join(self.mistakes))


class PluginError(JoineryError):
    """The code of a plugin raised an error; the message names the plugin and its own line."""


class DataError(JoineryError):
    """An episode, a store or a source of data is missing, damaged or contradicts itself."""


class CheckpointError(JoineryError):
    """A checkpoint is missing, damaged, does not fit the recipe, or cannot be written."""


class PolicyError(JoineryError):
    """A part of a policy returned what its contract does not allow, or actions that are NaN."""


class TrainingError(JoineryError):
    """Training cannot continue, for example because a loss is not finite."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return the end of a message about an unknown word; it suggests known words.

    It is `; did you mean 'x'?` if a known word is similar. Otherwise it lists the known words, or
    is empty if there are more than 30.
    """
    if near := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(sorted(known)) or 'none'}" if len(known) <= 30 else ""
