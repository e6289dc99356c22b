"""The variants of a sweep: every recipe with every named variant, grid value and draw."""

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import exp, log
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.recipe.checking import UNSET, read_toml
from core.recipe.contents import PARTS
from core.sweep.config import Range, SearchConfig, SweepConfig

Values = Mapping[str, Any]
# sections that name a component
COMPONENT_SECTIONS = (*PARTS, "optimizer", "environment")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]*")
# the sweep's own files stand beside the variants' folders
OWN_FILES = (".json", ".html")
LONGEST_NAME = 120
# digits of numbers that are drawn, so that names of variants and their recipes say the same
DIGITS = 3
# a search gives up to find another combination after so many draws
TRIES = 200


@dataclass(frozen=True)
class Variant:
    """A recipe with overrides; its runs differ in their seed alone.

    values: {"section.key": value} that a search has chosen.
    """

    name: str
    recipe: Path
    overrides: tuple[str, ...]
    values: Values = field(default_factory=dict)


def base_variants(config: SweepConfig) -> list[Variant]:
    """Return the variants before a search: recipes x named variants x grid.

    Raises ConfigError if two of them have one name, or if a name is not fit for a folder.
    """
    named = [(variant.name, variant.overrides) for variant in config.variant] or [("", ())]
    points = [dict(zip(config.grid, p, strict=True)) for p in product(*config.grid.values())]
    variants = [
        _variant(config, recipe, [name], [*config.overrides, *overrides], point)
        for recipe in config.recipes
        for name, overrides in named
        for point in points
    ]
    check_names(variants)
    return variants


def with_values(variant: Variant, values: Values, name_of_base: bool) -> Variant:
    """Return a variant with the values that a search has chosen.

    name_of_base: whether the name begins with that of `variant`.
    """
    name = ",".join([*([variant.name] if name_of_base else []), *name_parts(values)])
    overrides = (*variant.overrides, *as_overrides(values, variant.recipe))
    return Variant(name, variant.recipe, overrides, values)


def _variant(
    config: SweepConfig, recipe: Path, names: Sequence[str], overrides: Sequence[str], point: Values
) -> Variant:
    words = [recipe.stem] if len(config.recipes) > 1 else []
    words += [*filter(None, names), *name_parts(point)]
    name = ",".join(words) or recipe.stem
    return Variant(name, recipe, (*overrides, *as_overrides(point, recipe)))


def check_names(variants: Sequence[Variant]) -> None:
    """Raise ConfigError if two variants have one name, or if a name is not fit for a folder.

    Names that differ in case alone are one, as on some machines.
    """
    names = [variant.name for variant in variants]
    counts = Counter(map(str.lower, names))
    firsts = {name.lower(): name for name in reversed(names)}
    mistakes = [
        f"two variants are called '{firsts[name]}'; give them names by [[variant]], or drop one"
        for name, count in counts.items()
        if count > 1
    ]
    mistakes += [
        f"variant '{name}': expected a name of at most {LONGEST_NAME} letters, digits and _ . , = "
        "+ -, which is a folder's, too; name the variants by [[variant]]"
        for name in dict.fromkeys(names)
        if not NAME.fullmatch(name) or len(name) > LONGEST_NAME
    ]
    mistakes += [
        f"variant '{name}': a sweep's own files end in {name[-5:]}; name it otherwise"
        for name in dict.fromkeys(names)
        if name.lower().endswith(OWN_FILES)
    ]
    if mistakes:
        raise ConfigError(mistakes)


def as_overrides(values: Values, recipe: Path) -> tuple[str, ...]:
    """Return values as overrides of a recipe.

    A key `section.name` chooses a component with its defaults, so it replaces the section, unless
    it is the component that the recipe has. Components come before the other keys.
    """
    in_order = sorted(values.items(), key=lambda item: not _chooses_component(item[0]))
    own = read_toml(recipe, "the recipe")
    return tuple(_override(key, value, own) for key, value in in_order)


def _override(key: str, value: Any, recipe: Mapping[str, Any]) -> str:
    section = key.partition(".")[0]
    table = recipe.get(section)
    if _chooses_component(key) and not (isinstance(table, dict) and table.get("name") == value):
        return f"{section}={toml_text({'name': value})}"
    return f"{key}={value if value == UNSET else toml_text(value)}"


def _chooses_component(key: str) -> bool:
    section, _, last = key.partition(".")
    return last == "name" and section in COMPONENT_SECTIONS


def name_parts(values: Values) -> list[str]:
    """Return what the values add to a name: `lstm` for a component, otherwise `depth=2`."""
    lasts = [key.rpartition(".")[2] for key in values]
    parts = []
    for key, value in values.items():
        last = key.rpartition(".")[2]
        shown = last if lasts.count(last) == 1 else key
        word = _word(value)
        parts.append(word if _chooses_component(key) else f"{shown}={word}")
    return parts


def _word(value: Any) -> str:
    """Return a value as a word that may stand in the name of a folder."""
    text = value if isinstance(value, str) else toml_text(value)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_")


def toml_text(value: Any) -> str:
    """Return a value as TOML in one line, as an override holds it."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case bool():
            return "true" if value else "false"
        case Mapping():
            pairs = (f"{_toml_key(key)} = {toml_text(entry)}" for key, entry in value.items())
            return f"{{{', '.join(pairs)}}}"
        case Sequence():
            return f"[{', '.join(map(toml_text, value))}]"
        case _:
            return str(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_text(key)


def draws(search: SearchConfig) -> list[Values]:
    """Return the combinations of values that a random search tries, all of them different.

    The first n are the same whatever `trials` is. Raises ConfigError if there are not so many.
    """
    generator, tries = random.Random(search.seed), 0
    found: list[Values] = []
    while len(found) < search.trials and tries < TRIES * search.trials:
        values: Values = {key: _draw(choices, generator) for key, choices in search.ranges.items()}
        tries += 1
        if values not in found:
            found.append(values)
    if len(found) < search.trials:
        raise ConfigError(
            f"search.trials: expected {search.trials} combinations, found only {len(found)} "
            "different ones; lower it, or widen search.ranges"
        )
    return found


def _draw(choices: Range | tuple[Any, ...], generator: random.Random) -> Any:
    if not isinstance(choices, Range):
        return generator.choice(choices)
    share, low, high = generator.random(), choices.low, choices.high
    if choices.log:
        number = exp(log(low) + share * (log(high + choices.is_whole) - log(low)))
    else:
        number = low + share * (high + choices.is_whole - low)
    return rounded(number, choices)


def rounded(number: float, choices: Range) -> int | float:
    """Return a number of a range with few digits, or as a whole one."""
    if choices.is_whole:
        return min(int(number), int(choices.high))
    return min(max(float(f"{number:.{DIGITS}g}"), choices.low), choices.high)
