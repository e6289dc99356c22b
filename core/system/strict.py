"""Makes dataclasses from plain data and checks every type; gives error messages in one line."""

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def from_plain(kind: type[T], plain: Any) -> T:
    """Make a dataclass from plain data: numbers, strings, lists, and mappings with string keys.

    The data goes through JSON, because pydantic's strict mode for JSON checks every type, but
    accepts a list where a tuple is declared and a string where a path is declared. Raises
    ValueError, of which pydantic's ValidationError is a kind, and whatever else `json.dumps`
    raises.
    """
    try:
        text = json.dumps(plain)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return TypeAdapter(kind).validate_json(text, strict=True)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that others wrote.

    Raises ValueError for anything but JSON, also if it is nested so deeply that Python gives up.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def one_line(error: Exception) -> str:
    """Return the message of an error in one line, or the name of its class if it has no message.

    If a pydantic error reports several mistakes, their messages are joined. The file name of an
    OSError is left out.
    """
    if isinstance(error, ValidationError):
        lines = []
        for mistake in error.errors():
            location = ".".join(map(str, mistake["loc"]))
            line = f"{location}: {mistake['msg']}".removeprefix(": ")
            lines.append(line.replace("Value error, ", ""))
        return "; ".join(lines)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
