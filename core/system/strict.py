"""Makes dataclasses from plain data and checks every type; gives error messages in one line."""

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def from_plain(kind: type[T], plain: Any) -> T:
    """Make a dataclass from plain data: numbers, strings, lists, and mappings with string keys.

    The data goes through JSON, because pydantic's strict mode for JSON checks every type, but
    accepts a list where a tuple is declared and a string where a path is declared. Raises
    pydantic's ValidationError, and whatever `json.dumps` raises.
    """
    return TypeAdapter(kind).validate_json(json.dumps(plain), strict=True)


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
