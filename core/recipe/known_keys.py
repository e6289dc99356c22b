"""Which keys a recipe could have, so that an override that removes a mistyped key is noticed."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from core.errors import did_you_mean
from core.recipe.contents import Recipe
from core.recipe.sections import ENVIRONMENT_SECTIONS, SECTIONS


def unknown_keys(recipe: Recipe, paths: Iterable[str]) -> Iterator[str]:
    """Yield a line for each "section.key", or "section", that the recipe could not have."""
    known = known_keys(recipe)
    for path in paths:
        section, dot, key = path.partition(".")
        if section not in known:
            yield f"[{section}]: unknown section{did_you_mean(section, sorted(known))}"
        elif dot and key not in known[section]:
            yield f"{path}: unknown key{did_you_mean(key, sorted(known[section]))}"


def known_keys(recipe: Recipe) -> dict[str, set[str]]:
    """Return {section: all keys that it may have}, with the components that the recipe chooses.

    [[auxiliary]] has no keys here, since its tables are none of a section. Without an environment,
    the keys of [environment] are unknown.
    """
    configs: dict[str, list[Any]] = {
        name: [config] for name, config in {**SECTIONS, **ENVIRONMENT_SECTIONS}.items()
    }
    for kind, part in recipe.parts.items():
        configs[kind] = [part.config, part.settings, part.kind_settings]
    configs["optimizer"] = [recipe.optimizer.config]
    configs["environment"] = [recipe.environment.config] if recipe.environment else []
    keys = {
        section: {f.name for config in several if config is not None for f in fields(config)}
        for section, several in configs.items()
    }
    for section in (*recipe.parts, "optimizer", "environment"):
        keys[section].add("name")
    return {**keys, "auxiliary": set()}
