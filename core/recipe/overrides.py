"""Changes of a recipe's tables before they are checked: another environment, and overrides."""

from collections.abc import Iterable, Mapping
from typing import Any

from core.recipe.checking import parse_value
from core.recipe.former import present_name, rename_former_keys


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
    """Write the overrides into `values`; return their keys, and all mistakes.

    overrides: `section.key=value` writes one key, and `section={key = value}` replaces a section.
    """
    overridden_keys: set[str] = set()
    mistakes: list[str] = []
    for pair in overrides:
        path, equals, text = pair.partition("=")
        section, dot, key = path.strip().partition(".")
        value = parse_value(text)
        if section == "auxiliary":
            mistakes.append(
                f"override '{pair}': tables [[auxiliary]] cannot be overridden; "
                "change them in the recipe"
            )
        elif section and not dot and isinstance(value, dict):
            values[section] = value
            rename_former_keys(values)
            overridden_keys |= {f"{section}.{key}" for key in values[section]}
        elif equals and dot and key and isinstance(values.setdefault(section, {}), dict):
            key = present_name(section, key)
            values[section][key] = value
            overridden_keys.add(f"{section}.{key}")
        else:
            mistakes.append(
                f"override '{pair}': expected section.key=value, for example train.steps=100, or "
                """a whole section, for example 'policy_head={name = "lstm"}'"""
            )
    return overridden_keys, mistakes


def section_of(override: str) -> str:
    """Return the section that an override changes."""
    return override.partition("=")[0].partition(".")[0].strip()


def leftover_keys(
    former: Mapping[str, Any], overrides: Iterable[str], mistakes: Iterable[str]
) -> list[str]:
    """Return a line for each override of a name in whose section the former keys are refused.

    former: the recipe's sections before the overrides.
    """
    lines = []
    for pair in overrides:
        path, _, text = pair.partition("=")
        section, _, key = path.strip().partition(".")
        table, name = former.get(section, {}), parse_value(text)
        if key != "name" or not isinstance(table, dict) or table.get("name", name) == name:
            continue
        if any(m.startswith(f"{section}.") and ": unknown key" in m for m in mistakes):
            lines.append(
                f"{section}.name={name} alone keeps the section's other keys, which were those of "
                f"'{table['name']}'; to replace the whole section: "
                f"'{section}={{name = \"{name}\"}}'"
            )
    return lines
