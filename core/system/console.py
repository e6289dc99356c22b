"""The consoles of the program: whatever is printed, except `--help`, goes through one of them."""

import os
import sys

from rich.console import Console

from core.system.streams import discard

# The width of a log or a pipe, which have none: wide enough that no table must be cut.
UNLIMITED = 1000


class PlainConsole(Console):
    """A console that prints text as it is, and goes on where nobody reads any more.

    Names of tasks and messages may hold square brackets and colons, which are neither markup nor
    emoji. If the reader of a pipe is gone, `head` for example, the output is dropped and the work
    goes on, so that the exit code is that of the work.
    """

    def on_broken_pipe(self) -> None:
        """Drop the output."""
        self.quiet = True
        discard(self.file)


def output(*, quiet: bool = False) -> Console:
    """Return a console of the standard output.

    quiet: print nothing, in all processes of a run but the first for example.
    """
    return _console(is_error=False, quiet=quiet)


def errors() -> Console:
    """Return a console of the standard error, for progress, warnings and mistakes."""
    return _console(is_error=True, quiet=False)


def _console(*, is_error: bool, quiet: bool) -> Console:
    stream = sys.stderr if is_error else sys.stdout
    is_terminal = stream is not None and stream.isatty()
    has_width = is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return PlainConsole(
        stderr=is_error,
        quiet=quiet,
        width=None if has_width else UNLIMITED,
        soft_wrap=True,
        markup=False,
        emoji=False,
        highlight=False,
    )
