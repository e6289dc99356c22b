"""Standard output and error as they are in practice: pipes that close, ASCII alone, or not there.

Only the standard library is imported here, so that `--help` waits for nothing.
"""

import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

# the name under which Python knows `_plain_text`
PLAIN = "joinery.plain"
# Characters of tables and prose, and what stands for each where the encoding lacks it. Each is
# replaced by a single one, so that the columns of a table stay below each other.
LOOKALIKES = {
    **dict.fromkeys("–—−─━╺╸╴╶", "-"),  # noqa: RUF001
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰", "+"),
    **dict.fromkeys("·•", "."),
    **dict.fromkeys("‘’", "'"),  # noqa: RUF001
    **dict.fromkeys("“”", '"'),
    "…": "~",
    "×": "x",  # noqa: RUF001
    "→": ">",
    "█": "#",
    "\N{NO-BREAK SPACE}": " ",
}


@contextmanager
def robust_streams() -> Iterator[None]:
    """While the block runs, no character and no closed pipe makes writing to the streams fail.

    A character that a stream's encoding lacks is replaced by one that looks alike, and by its
    number if there is none. A stream that the program was started without (`>&-`) becomes the null
    device, so that no file that is opened later gets its number. At the end, what cannot be
    written is dropped.
    """
    _open_missing_streams()
    codecs.register_error(PLAIN, _plain_text)
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    former = [(stream, stream.errors) for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=PLAIN)
    try:
        yield
    finally:
        for stream, errors in former:
            try:
                stream.flush()
            except OSError:
                discard(stream)
            stream.reconfigure(errors=errors)


def flush_output() -> None:
    """Write what the standard output holds back; if its reader has closed the pipe, drop it.

    Raises OSError if it cannot be written for another reason, a full disk for example.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def discard(stream: IO[str]) -> None:
    """Drop what a stream holds back, and all that is written to it from now on."""
    with suppress(OSError, ValueError):  # a stream in memory has no descriptor
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def has_reader(stream: IO[str]) -> bool:
    """Whether somebody may still read a stream: False for a pipe whose other end is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return not any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return True


def _open_missing_streams() -> None:
    """Open the null device for each standard stream that the program was started without."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _plain_text(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks; a handler of encoding errors (PEP 293)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(LOOKALIKES.get(c) or _number_of(c) for c in characters), error.end


def _number_of(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
