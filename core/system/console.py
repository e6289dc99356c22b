"""The consoles of the program: whatever is printed, except `--help`, goes through one of them."""

import os
import sys
from collections.abc import Iterable
from typing import Any
from unicodedata import category

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from core.system.streams import discard

# The width of a log or a pipe, which have none: wide enough that no table must be cut.
UNLIMITED = 1000


# Characters that change the order in which others are shown, so that a line can say one thing and
# seem to say another (CVE-2021-42574), and two that some terminals take for the end of a line.
MISLEADING = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
)


def printable(text: str) -> str:
    """Return a text with its control codes written out, as in \\x1b; lines and tabs stay.

    A terminal obeys such codes: they can clear it, retitle it, or hide what was printed before.
    """
    if text.isprintable():
        return text
    return "".join(repr(c)[1:-1] if c in MISLEADING or _controls(c) else c for c in text)


def _controls(character: str) -> bool:
    return character not in "\n\t" and category(character) in ("Cc", "Cs")


class PlainConsole(Console):
    """A console that prints text as it is, and goes on where nobody reads any more.

    Names of tasks and messages may hold square brackets and colons, which are neither markup nor
    emoji. What a stranger wrote may hold control codes, which are shown and not obeyed.

    If the reader of a pipe is gone, `head` for example, the output is dropped and the work goes on,
    so that the exit code is that of the work.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string into text, before it is measured."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is to be written; only what Rich itself has made may control the terminal."""
        for segment in super().render(renderable, options):
            is_own = segment.control or segment.text.isprintable()
            yield segment if is_own else Segment(printable(segment.text), segment.style)

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
