"""What the commands share: how errors end a command, how arguments are parsed, and their types."""

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import Literal

from core.errors import JoineryError, did_you_mean
from core.system.ctrl_c import CtrlC
from core.system.streams import flush_output, has_reader, robust_streams
from core.system.tracebacks import show_traceback

Main = Callable[..., int]
# the exit code of a program that Ctrl-C has ended: 128 plus the number of the signal
INTERRUPTED = 130


def command(main: Main) -> Main:
    """Make a command print a line for each mistake, not a traceback, and return an exit code.

    Whatever the terminal or pipe is, nothing that is printed makes the command fail.
    """

    @wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        with robust_streams(), CtrlC() as ctrl_c:
            return _run(main, argv, ctrl_c)

    return wrapped


def _run(main: Main, argv: list[str] | None, ctrl_c: CtrlC) -> int:
    """Run a command; print what ended it, and return the exit code."""
    try:
        code = main(argv)
        flush_output()
        if code == INTERRUPTED or not ctrl_c.pressed:
            return code
    except KeyboardInterrupt:
        pass
    except Exception as error:  # noqa: BLE001 (a mistake of Joinery itself is raised again)
        if not ctrl_c.pressed:
            return _explain(error)
    _print_error("interrupted")
    return INTERRUPTED


def _explain(error: Exception) -> int:
    """Print why a command failed; return the exit code.

    Raises a mistake of Joinery itself again, so that its traceback can be reported.
    """
    if isinstance(error, JoineryError):
        return _report(error)
    if isinstance(error, BrokenPipeError) and not has_reader(sys.stdout):
        return 0  # a plugin printed, and the reader, `head` for example, has closed the pipe
    if isinstance(error, OSError):
        file, reason = error.filename or "a file", error.strerror or error
        _print_error(f"error: {file}: {reason}")
        return 1
    if isinstance(error, MemoryError):
        _print_error(
            "error: not enough memory; a damaged file may claim more than it holds, which joinery "
            "verify finds in a store; otherwise use a machine with more"
        )
        return 1
    if (fault := _fault_of_a_plugin(error)) is None:
        raise error
    return _report(fault)


def _report(error: JoineryError) -> int:
    """Print a line for each mistake; return the exit code."""
    show_traceback(error)
    for line in str(error).splitlines():
        _print_error(f"error: {line}")
    return error.exit_code


def _print_error(line: str) -> None:
    # Not at the top: a mistyped argument is answered before the library is imported.
    from core.system.console import errors

    errors().print(line)


def _fault_of_a_plugin(error: Exception) -> JoineryError | None:
    """Return an error that names the plugin whose code raised; None if no plugin's code did."""
    from core.registry.catalogue import load_plugins
    from core.registry.faults import find_fault

    if not load_plugins.cache_info().currsize:
        return None
    fault = find_fault(error, load_plugins().components())
    if fault is not None:
        fault.__cause__ = error
    return fault


class CommandParser(ArgumentParser):
    """Parses the arguments of a command; its options may stand anywhere among them.

    name: of the command.
    description: what the command does.
    writes: what it writes, and where; the last words of its help.
    """

    def __init__(self, name: str, description: str, writes: str) -> None:
        super().__init__(
            prog=f"joinery {name}", description=description, epilog=f"Writes {writes}."
        )

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        """Return the arguments; a mistake ends the program with exit code 2."""
        words = sys.argv[1:] if argv is None else list(argv)
        options = list(takewhile(lambda word: word != "--", words))
        self._refuse_unknown_options(options)
        # Python 3.11 loses what comes after "--", which are paths that may begin with a dash
        paths = [
            f"./{word}" if word.startswith("-") else word for word in words[len(options) + 1 :]
        ]
        return self.parse_intermixed_args([*options, *paths])

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Say which option may be meant; argparse would rather miss what comes after it."""
        known = list(self._option_string_actions)
        for word in words:
            option = word.partition("=")[0]
            is_option = re.match(r"-[^\d\s.]", word) and " " not in word
            if not is_option or any(name.startswith(option) for name in known):
                continue
            advice = did_you_mean(option, known)
            if Path(word).exists():
                advice = f"; if the file or folder is meant, write ./{word}"
            self.error(f"no option is called '{option}'{advice}")


def before_settings(text: str) -> str:
    """Parse an argument that stands before the settings `key=value`, not after them.

    A path may hold an equals sign, if there is such a file or folder.
    """
    if not text:
        raise ArgumentTypeError("expected a name or a path, got an empty text")
    if re.match(r"[A-Za-z_][\w.]*=", text) and not Path(text).exists():
        raise ArgumentTypeError(f"'{text}' is a setting; names and paths come before the settings")
    return text


def path(text: str) -> Path:
    """Parse an argument that is the path of a file or folder."""
    return Path(before_settings(text))


def positive(text: str) -> int:
    """Parse an argument that is a whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"expected a whole number above zero, got '{text}'")
    return int(text)


def add_moved(parser: ArgumentParser) -> None:
    """Add the option --moved OLD=NEW, which may be repeated."""
    parser.add_argument(
        "--moved",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="where a file or folder that a run's recipe names is now; may be repeated",
    )


def checkpoint_name(text: str) -> Literal["last", "best"] | int:
    """Parse an argument that chooses one of a run's checkpoints: last, best, or its step."""
    if text == "last":
        return "last"
    if text == "best":
        return "best"
    if not text.isdecimal():
        raise ArgumentTypeError(f"expected last, best, or the step of a checkpoint, got '{text}'")
    return int(text)


def local_path(text: str) -> Path:
    """Parse an argument that is the path of a store to write; URLs are refused."""
    if "://" in text:
        raise ArgumentTypeError(
            f"{text}: episodes are written to a folder; write them there, then upload it"
        )
    return path(text)
