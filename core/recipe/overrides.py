"""Changes of a recipe's tables before they are checked: another environment, and overrides."""

from collections.abc import Iterable
from typing import Any

from core.recipe.checking import parse_value
from core.recipe.former import present_name


def replace_environment(values: dict[str, Any], name: str) -> None:
    """Replace the environment in `values`; drop its settings, the tasks and [demonstrations]."""
    own = values.get("environment")
    if isinstance(own, dict) and own.get("name") == name:
        return
    values["environment"] = {"name": name}
    values.pop("demonstrations", None)
    if isinstance(evaluate := values.get("evaluate"), dict):
        evaluate.pop("tasks", None)


def override(values: dict[str, Any], overrides: Iterable[str]) -> tuple[set[str], list[str]]:
    """Write `section.key=value` pairs into `values`; return their keys, and all mistakes."""
    overridden_keys: set[str] = set()
    mistakes: list[str] = []
    for pair in overrides:
        path, equals, text = pair.partition("=")
        section, dot, key = path.strip().partition(".")
        if section == "auxiliary":
            mistakes.append(
                f"override '{pair}': tables [[auxiliary]] cannot be overridden; "
                "change them in the recipe"
            )
            continue
        if not (equals and dot and key and isinstance(values.setdefault(section, {}), dict)):
            mistakes.append(
                f"override '{pair}': expected section.key=value, for example train.steps=100"
            )
            continue
        key = present_name(section, key)
        values[section][key] = parse_value(text)
        overridden_keys.add(f"{section}.{key}")
    return overridden_keys, mistakes
