"""Finds the line of a plugin's own code that raised an error, and prints tracebacks on request."""

import inspect
import os
from collections.abc import Callable
from traceback import format_exception, walk_tb
from types import FrameType
from typing import Any

# A message names one line of code. The author of that code sees the whole traceback, too, if this
# environment variable is set to anything.
TRACEBACK_VARIABLE = "JOINERY_TRACEBACK"


def show_traceback(error: BaseException) -> None:
    """Print the traceback of an error, and of its causes, if the user asked for tracebacks."""
    if os.environ.get(TRACEBACK_VARIABLE):
        from core.system.console import errors  # here, since few ask, and importing Rich takes long

        errors().print("".join(format_exception(error)), end="")


def error_in_one_line(error: BaseException, package: str = "", otherwise: str = "") -> str:
    """Return the type and message of an error, and the line of code that it came from.

    package: dotted name of a package or module, whose innermost line is named.
    otherwise: the place to name if the error did not pass through the package; default: the
        innermost line of all.
    """
    message = " ".join(f"{type(error).__name__}: {message_of(error)}".split())[:500]
    message = message.removesuffix(":")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{message.partition(' (')[0]}, at {error.filename}:{error.lineno}"
    lines = list(walk_tb(error.__traceback__))
    own = [line for line in lines if package and is_of(line[0], package)]
    if not lines or (otherwise and not own):
        return message + otherwise
    frame, number = (own or lines)[-1]
    return f"{message}, at {frame.f_code.co_filename}:{number}"


def message_of(error: BaseException) -> str:
    """Return the message of an error of any type, whose own `__str__` may raise."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - anybody's code
        return f"its message cannot be shown ({type(fault).__name__})"


def is_of(frame: FrameType, package: str) -> bool:
    """Whether a frame runs code of a package or module, given by its dotted name."""
    name = str(frame.f_globals.get("__name__", ""))
    return name == package or name.startswith(f"{package}.")


def place_of(code: Callable[..., Any]) -> str:
    """Return where a function or class is defined, as ", at FILE:LINE"; "" if that is unknown."""
    try:
        function = inspect.unwrap(code)
        file = inspect.getsourcefile(function)
        _, line = inspect.getsourcelines(function)
    except (OSError, TypeError, ValueError):
        return ""
    return f", at {file}:{line}"
