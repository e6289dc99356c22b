"""What the commands share: how errors end a command, and types of arguments."""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Literal

from core.errors import JoineryError
from core.system.tracebacks import show_traceback

Main = Callable[..., int]


def command(main: Main) -> Main:
    """Make a command print a line for each mistake, not a traceback, and return an exit code."""

    @wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except JoineryError as error:
            return _report(error)
        except BrokenPipeError:
            return 0  # the reader of our output, `head` for example, has closed the pipe
        except OSError as error:
            file, reason = error.filename or "a file", error.strerror or error
            print(f"error: {file}: {reason}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            if (fault := _fault_of_a_plugin(error)) is None:
                raise  # a mistake of Joinery itself, of which the traceback should be reported
            return _report(fault)

    return wrapped


def _report(error: JoineryError) -> int:
    """Print a line for each mistake; return the exit code."""
    show_traceback(error)
    print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    return error.exit_code


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
    return Path(text)
