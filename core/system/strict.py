"""Dataclasses from plain data, with every type checked."""

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def from_plain(kind: type[T], plain: Any) -> T:
    """Make a dataclass of plain data: numbers, texts, lists and mappings with texts as keys.

    It goes through JSON, the mode in which pydantic is strict about types and yet takes a list for
    a tuple and a text for a path. Raises pydantic's ValidationError, and what `json.dumps` raises.
    """
    return TypeAdapter(kind).validate_json(json.dumps(plain), strict=True)


def one_line(error: Exception) -> str:
    """Say in one line what an error says, or its kind where it says nothing.

    pydantic's errors, which may be several, are joined; the name of a file is left out.
    """
    if isinstance(error, ValidationError):
        lines = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return "; ".join(line.removeprefix(": ").replace("Value error, ", "") for line in lines)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
