"""The files and folders that a recipe names: all of them at once, and relative paths."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from core.recipe.contents import Choice, Part, Recipe

T = TypeVar("T")
# (key, value) -> value; the value is a Path, or a string that may be a name on the hub instead
Change = Callable[[str, Path | str], Path | str]

# keys of every part that name where weights come from
SOURCES = ("pretrained", "lora_pretrained")


def with_absolute_paths(recipe: Recipe, folder: Path, overridden_keys: set[str]) -> Recipe:
    """Return the recipe with absolute paths; see `absolute_from` for the other two arguments."""
    return change_places(recipe, absolute_from(folder, overridden_keys))


def absolute_from(folder: Path, overridden_keys: set[str]) -> Change:
    """Return the change that makes relative paths absolute.

    folder: the recipe's folder; the paths in the recipe are relative to it.
    overridden_keys: keys that the command line has set; their paths are relative to the current
        folder.
    """

    def absolute(key: str, value: Path | str) -> Path | str:
        path = (Path.cwd() if key in overridden_keys else folder) / value
        if isinstance(value, Path):
            return path
        return str(path.absolute()) if path.exists() else value

    return absolute


def change_places(recipe: Recipe, change: Change) -> Recipe:
    """Return the recipe with every path, and every name that may be a path, as `change` makes it.

    `change` gets the dotted key, "text_encoder.model" for example, and the value. For a key that
    holds several tables, such as [[data.stores]], all their paths have the key of the tables.
    """

    def of_choice(choice: Choice, section: str) -> Choice:
        return replace(choice, config=change_config(choice.config, section, change))

    return replace(
        recipe,
        data=change_config(recipe.data, "data", change),
        start=change_config(recipe.start, "start", change),
        optimizer=of_choice(recipe.optimizer, "optimizer"),
        parts={kind: change_part(part, kind, change) for kind, part in recipe.parts.items()},
        auxiliary={
            label: change_part(part, f"auxiliary.{label}", change)
            for label, part in recipe.auxiliary.items()
        },
        environment=recipe.environment and of_choice(recipe.environment, "environment"),
    )


def change_part(part: Part, section: str, change: Change) -> Part:
    """Return a part with changed paths, those of its configuration and `SOURCES`."""
    settings = part.settings
    for key in SOURCES:
        if isinstance(value := getattr(settings, key), str):
            changed: dict[str, Any] = {key: str(change(f"{section}.{key}", value))}
            settings = replace(settings, **changed)
    return replace(part, config=change_config(part.config, section, change), settings=settings)


def change_config(config: T, section: str, change: Change, key: str | None = None) -> T:
    """Return a configuration with changed paths; `key` is that of a table inside another one."""
    changes: dict[str, Any] = {}
    for f in fields(config):  # type: ignore[arg-type]
        own_key, value = key or f"{section}.{f.name}", getattr(config, f.name)
        if isinstance(value, Path):
            changes[f.name] = Path(change(own_key, value))
        elif isinstance(value, str) and f.metadata.get("located"):
            changes[f.name] = str(change(own_key, value))
        elif isinstance(value, tuple) and any(is_dataclass(entry) for entry in value):
            changes[f.name] = tuple(
                change_config(entry, section, change, own_key) for entry in value
            )
    return replace(config, **changes)  # type: ignore[type-var]
