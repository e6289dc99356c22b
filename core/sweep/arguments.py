"""The arguments of `joinery sweep`, as far as they add to the file of a sweep."""

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.recipe.checking import parse_settings, parse_value
from core.recipe.overrides import section_of
from core.sweep.config import EXECUTORS

OVERRIDE = re.compile(r"\s*[A-Za-z_][\w.]*\s*=")
# numbers between colons, and not a list whose texts hold colons
BOUNDS = re.compile(r"""[^:,"'\[{]*(:[^:,"'\[{]*)+""")
# in a list of values: a comma, or what may hold commas
PIECES = re.compile(r"""("(?:\\.|[^"\\])*"|'[^']*'|[\[\]{}]|,)""")


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Divide words into files and overrides."""
    overrides = [word for word in words if OVERRIDE.match(word) and not Path(word).exists()]
    return [Path(word) for word in words if word not in overrides], overrides


def add_arguments(values: dict[str, Any], arguments: Namespace, overrides: Iterable[str]) -> None:
    """Write the arguments into the contents of the sweep's file; they come before what it says.

    Raises ConfigError with every mistake, one per line.
    """
    mistakes: list[str] = []
    overrides = list(overrides)
    for name in EXECUTORS:
        settings = [pair.partition(".")[2] for pair in overrides if section_of(pair) == name]
        if settings:
            _add(values, name, parse_settings(settings, mistakes))
    own = [pair for pair in overrides if section_of(pair) not in EXECUTORS]
    if own and isinstance(former := values.setdefault("overrides", []), list):
        values["overrides"] = [*former, *own]
    grid = {key: split_values(text) for key, text in _pairs("grid", arguments.grid, mistakes)}
    _add(values, "grid", grid)
    pairs = _pairs("range", arguments.range, mistakes)
    ranges = {key: _range(key, text, mistakes) for key, text in pairs}
    given = {"trials": arguments.trials, "method": arguments.method}
    _add(values, "search", {key: value for key, value in given.items() if value is not None})
    if ranges and isinstance(search := values.setdefault("search", {}), dict):
        _add(search, "ranges", ranges)
    if arguments.seeds:
        seeds = split_values(arguments.seeds)
        values["seeds"] = seeds[0] if len(seeds) == 1 else seeds
    if arguments.baseline:
        values["baseline"] = arguments.baseline
    if mistakes:
        raise ConfigError(mistakes)


def _add(values: dict[str, Any], name: str, more: Mapping[str, Any]) -> None:
    """Add keys to a table of the file; one that is no table is left to be reported."""
    if more and isinstance(table := values.setdefault(name, {}), dict):
        values[name] = {**table, **more}


def _pairs(option: str, texts: Sequence[str], mistakes: list[str]) -> Iterable[tuple[str, str]]:
    for text in texts:
        key, equals, rest = text.partition("=")
        if not equals or "." not in key or not rest.strip():
            mistakes.append(f"--{option} {text}: expected section.key=..., train.learning_rate=...")
        else:
            yield key.strip(), rest


def _range(key: str, text: str, mistakes: list[str]) -> Any:
    """Read LOW:HIGH, LOW:HIGH:log, or a list of choices."""
    if not BOUNDS.fullmatch(text):
        return split_values(text)
    low, high, *log = text.split(":")
    if log not in ([], ["log"]):
        mistakes.append(f"--range {key}={text}: expected LOW:HIGH or LOW:HIGH:log")
    return {"low": parse_value(low), "high": parse_value(high), "log": bool(log)}


def split_values(text: str) -> list[Any]:
    """Read values between commas; those in quotes, brackets and braces belong to a value."""
    pieces, depth, current = [], 0, ""
    for piece in PIECES.split(text):
        depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        if piece == "," and depth == 0:
            pieces.append(current)
            current = ""
        else:
            current += piece
    return [parse_value(piece) for piece in (*pieces, current) if piece.strip()]
