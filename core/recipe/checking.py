"""Makes checked dataclasses from plain data; collects all mistakes, not only the first."""

import json
import math
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import ConfigError, did_you_mean
from core.registry.components import parameters_of
from core.system.strict import from_plain
from core.system.tracebacks import error_in_one_line, show_traceback

T = TypeVar("T")
# `key=unset` on the command line removes a key, since TOML has no null; quotes make a text of it
UNSET = "unset"


def fill(
    config: type[T],
    values: Mapping[str, Any],
    where: str,
    mistakes: list[str],
    other_keys: Collection[str] = (),
) -> T | None:
    """Make a dataclass from `values`, or append a line for each mistake and return None.

    where: the dotted path of the section, for the messages.
    mistakes: the list to which the lines are appended.
    other_keys: further keys of the section, to be suggested for a mistyped key.
    """
    known_keys = [f.name for f in fields(config)]  # type: ignore[arg-type]
    known_values: dict[str, Any] = {}
    unsupported: list[str] = []
    for key, value in values.items():
        if key in known_keys:
            known_values[key] = value
            unsupported += _unsupported_values(f"{where}.{key}", value)
        else:
            mistakes.append(
                f"{where}.{key}: unknown key{did_you_mean(key, [*known_keys, *other_keys])}"
            )
    mistakes += unsupported
    if unsupported:  # pydantic checks values as JSON, which cannot hold unsupported values
        return None
    try:
        result = from_plain(config, known_values)
    except ValidationError as error:
        mistakes += _lines(config, where, error.errors(include_url=False))
        return None
    except Exception as error:  # noqa: BLE001 - the __post_init__ of another author's config
        show_traceback(error)
        line = error_in_one_line(error, config.__module__.partition(".")[0])
        mistakes.append(f"{where}: {config.__name__}.__post_init__ raised {line}")
        return None
    return result if len(known_values) == len(values) else None


def read_toml(path: Path, label: str) -> dict[str, Any]:
    """Read a TOML file; raises ConfigError if it cannot be read, or is not valid TOML.

    label: what error messages call the file, "the recipe" for example.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read {label}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot read {label}: not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError is a ValueError
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_value(text: str) -> Any:
    """Read a value from the command line as TOML, or as a string if it is not TOML.

    A bare word is read as a string, so users need not write TOML's quotes inside the shell's
    quotes.
    """
    try:
        table = tomllib.loads(f"value = {text.strip()}")
    # ValueError: not TOML, or a number with thousands of digits; RecursionError: nested too deeply
    except (ValueError, RecursionError):
        return text.strip()
    # if line breaks in the text add further keys, the text is not a single value
    return table["value"] if len(table) == 1 else text.strip()


def parse_settings(
    pairs: Iterable[str], mistakes: list[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read `key=value` pairs from the command line; append a mistake for anything else.

    defaults: the settings of a file, which the pairs replace; `key=unset` removes one.
    """
    values = dict(defaults or {})
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not (equals and key):
            mistakes.append(f"{pair}: expected key=value")
        elif text.strip() != UNSET:
            values[key] = parse_value(text)
        elif key in values:
            del values[key]
        else:
            mistakes.append(f"{pair}: no file sets {key}{did_you_mean(key, list(values))}")
    return values


def raise_if_repeated(names: tuple[str, ...], key: str) -> None:
    """Raise ValueError if a name occurs twice in the list that is the value of `key`."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{key} names one twice: {', '.join(repeated)}")


def _unsupported_values(path: str, value: Any) -> list[str]:
    """Return a line for each value that TOML allows but recipes do not: dates, infinities, NaN."""
    if isinstance(value, list | dict):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        lines: list[str] = []
        for key, entry in entries:
            lines += _unsupported_values(f"{path}.{key}", entry)
        return lines
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{path}: expected a finite number, got {value}"]
    if not isinstance(value, str | int | float):
        return [f"{path}: expected a string, a number or a list, got {value}"]
    return []


def _lines(config: type, where: str, errors: Sequence[ErrorDetails]) -> list[str]:
    """Write pydantic's errors in Joinery's words; a value of several types gets one line.

    For a key that takes values of several types, pydantic has an error for each type.
    """
    hints = get_type_hints(config)
    lines = []
    for details in errors:
        key = str(details["loc"][0]) if details["loc"] else ""
        kinds = [kind for kind in _members(hints.get(key)) if kind is not NoneType]
        if len(kinds) > 1 and details["type"] != "value_error":
            values = [error["input"] for error in errors if error["loc"][:1] == (key,)]
            (types,) = (p.type for p in parameters_of(config) if p.name == key)
            expected = types.replace(" | ", " or ")
            lines.append(f"{where}.{key}: expected {expected}, got {values[0]!r}")
        else:
            lines.append(_line(where, details))
    return list(dict.fromkeys(lines))


def _members(annotation: object) -> tuple[object, ...]:
    """Return the types of a union; nothing for any other annotation."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()


def _line(where: str, details: ErrorDetails) -> str:
    """Write one of pydantic's errors as a line in Joinery's words."""
    path = ".".join([where, *map(str, details["loc"])])
    if details["type"] == "missing":
        return f"{path}: missing; this key has no default"
    if details["type"] == "unexpected_keyword_argument":
        return f"{path}: unknown key"
    if details["type"] in ("list_type", "tuple_type"):
        value = details["input"]
        return f"{path}: expected a list, such as [{json.dumps(value)}], got {value!r}"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    value = "" if details["type"] == "value_error" else f", got {details['input']!r}"
    return f"{path}: {message}{value}"
