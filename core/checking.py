"""Fills dataclasses from plain data and says everything that is wrong with it at once."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from core.errors import did_you_mean

T = TypeVar("T")


def fill(config: type[T], values: Mapping[str, Any], where: str, mistakes: list[str]) -> T | None:
    """Make a dataclass of `values`; append one line a mistake to `mistakes` and return None if there is any.

    where: the dotted path of the section, for the messages.
    """
    known = [f.name for f in fields(config)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    mistakes += [f"{where}.{key}: unknown key{did_you_mean(key, known)}" for key in unknown]
    known_values = {key: value for key, value in values.items() if key in known}
    try:
        # JSON is the mode in which pydantic is strict about types and yet takes a list for a tuple, a string for a path
        filled = TypeAdapter(config).validate_json(json.dumps(known_values, default=str), strict=True)
    except ValidationError as error:
        mistakes += [_line(where, details) for details in error.errors(include_url=False)]
        return None
    return None if unknown else filled


def parse_value(text: str) -> Any:
    """Read a value from the command line as TOML; a bare word is a string, so that the shell needs no inner quotes."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _line(where: str, details: ErrorDetails) -> str:
    path = ".".join([where, *map(str, details["loc"])])
    if details["type"] == "missing":
        return f"{path}: missing; this key has no default"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    shown = "" if details["type"] == "value_error" else f", got {details['input']!r}"
    return f"{path}: {message}{shown}"
