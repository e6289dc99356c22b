"""Fills dataclasses from plain data and says everything that is wrong with it at once."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import did_you_mean
from core.system.strict import from_plain

T = TypeVar("T")


def fill(config: type[T], values: Mapping[str, Any], where: str, mistakes: list[str]) -> T | None:
    """Make a dataclass of `values`; append one line per mistake to `mistakes` and return None if
    there is any.

    where: the dotted path of the section, for the messages.
    """
    known = [f.name for f in fields(config)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    mistakes += [f"{where}.{key}: unknown key{did_you_mean(key, known)}" for key in unknown]
    known_values = {key: value for key, value in values.items() if key in known}
    if strange := [
        line for key, value in known_values.items() for line in _strange(f"{where}.{key}", value)
    ]:
        mistakes += strange
        return None
    try:
        filled = from_plain(config, known_values)
    except ValidationError as error:
        mistakes += [_line(where, details) for details in error.errors(include_url=False)]
        return None
    return None if unknown else filled


def parse_value(text: str) -> Any:
    """Read a value from the command line as TOML; a bare word is a string, so that the shell needs
    no inner quotes.
    """
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except (
        ValueError,
        RecursionError,
    ):  # a TOMLDecodeError is a ValueError, and so is a number of 5,000 digits
        return text.strip()
    return parsed["value"] if len(parsed) == 1 else text.strip()


def parse_settings(pairs: Iterable[str], mistakes: list[str]) -> dict[str, Any]:
    """Read `key=value` pairs from the command line; append one line to `mistakes` for each that is
    none.
    """
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if equals and key.strip():
            values[key.strip()] = parse_value(text)
        else:
            mistakes.append(f"{pair}: expected key=value")
    return values


def _strange(path: str, value: Any) -> list[str]:
    """What TOML can say and no key means: dates, and numbers that are not finite."""
    if isinstance(value, list):
        return [line for i, entry in enumerate(value) for line in _strange(f"{path}.{i}", entry)]
    if isinstance(value, dict):
        return [line for key, entry in value.items() for line in _strange(f"{path}.{key}", entry)]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{path}: expected a finite number, got {value}"]
    if not isinstance(value, str | int | float):
        return [f"{path}: expected a string, a number or a list, got {value}"]
    return []


def _line(where: str, details: ErrorDetails) -> str:
    path = ".".join([where, *map(str, details["loc"])])
    if details["type"] == "missing":
        return f"{path}: missing; this key has no default"
    if details["type"] == "unexpected_keyword_argument":
        return f"{path}: unknown key"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    shown = "" if details["type"] == "value_error" else f", got {details['input']!r}"
    return f"{path}: {message}{shown}"
