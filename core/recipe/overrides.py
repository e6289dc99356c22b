"""Changes of a recipe's tables before they are checked: another environment, and overrides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from core.episodes.renaming import NewNames
from core.recipe.checking import UNSET, parse_value
from core.recipe.former import present_name, rename_former_keys


def replace_environment(values: dict[str, Any], name: str) -> None:
    """Replace the environment in `values`.

    Its settings, the tasks, the new names of what it has, and [demonstrations] are dropped.
    """
    own = values.get("environment")
    if isinstance(own, dict) and own.get("name") == name:
        return
    values["environment"] = {"name": name}
    values.pop("demonstrations", None)
    if isinstance(evaluate := values.get("evaluate"), dict):
        for key in ("tasks", *(entry.name for entry in fields(NewNames))):
            evaluate.pop(key, None)


@dataclass
class Overridden:
    """What overrides have done to a recipe.

    written: dotted keys to which they gave a value.
    unset: dotted keys that they removed, and names of sections that they removed.
    mistakes: a line for each override that cannot be understood.
    """

    written: set[str] = field(default_factory=set)
    unset: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def override(values: dict[str, Any], overrides: Iterable[str]) -> Overridden:
    """Write the overrides into `values`, and return what they did.

    overrides: `section.key=value` writes one key, and `section={key = value}` replaces a section;
        `section.key=unset` and `section=unset` remove it.
    """
    done = Overridden()
    for pair in overrides:
        path, _, text = pair.partition("=")
        if text.strip() == UNSET:
            _unset(values, pair, path.strip(), done)
        else:
            _write(values, pair, path.strip(), parse_value(text), done)
    _drop_keys_of_controls(values, done)
    return done


def _unset(values: dict[str, Any], pair: str, path: str, done: Overridden) -> None:
    """Remove a key or a section; it then has its default."""
    section, dot, key = path.partition(".")
    if not section or bool(dot) != bool(key):
        done.mistakes.append(f"override '{pair}': expected section.key=unset or section=unset")
        return
    if not dot:
        values.pop(section, None)
        done.written -= {written for written in done.written if written.startswith(f"{section}.")}
        done.unset.append(section)
        return
    key = present_name(section, key)
    if isinstance(table := values.get(section), dict):
        table.pop(key, None)
    done.written.discard(f"{section}.{key}")
    done.unset.append(f"{section}.{key}")


def _write(values: dict[str, Any], pair: str, path: str, value: Any, done: Overridden) -> None:
    """Give a key, or a whole section, its value."""
    section, dot, key = path.partition(".")
    if section == "auxiliary":
        done.mistakes.append(
            f"override '{pair}': tables [[auxiliary]] cannot be overridden; "
            "change them in the recipe, or leave all of them out: auxiliary=unset"
        )
    elif section and not dot and isinstance(value, dict):
        values[section] = value
        rename_former_keys(values)
        done.written |= {f"{section}.{key}" for key in values[section]}
    elif "=" in pair and dot and key and isinstance(values.setdefault(section, {}), dict):
        key = present_name(section, key)
        values[section][key] = value
        done.written.add(f"{section}.{key}")
    else:
        done.mistakes.append(
            f"override '{pair}': expected section.key=value, for example train.steps=100, or "
            """a whole section, for example 'policy_head={name = "lstm"}'"""
        )


def _drop_keys_of_controls(values: dict[str, Any], done: Overridden) -> None:
    """If overrides choose other controls, drop the recipe's keys that only former ones needed.

    Keys that are overridden themselves stay, so that a contradiction among them is reported.
    """
    evaluate = values.get("evaluate")
    if "evaluate.controls" not in {*done.written, *done.unset} or not isinstance(evaluate, dict):
        return
    controls = evaluate.get("controls", [])
    if not isinstance(controls, list):
        return  # a mistake, of which the check of the section tells
    if not controls and "evaluate.control_episodes" not in done.written:
        evaluate.pop("control_episodes", None)
    if "swapped_words" not in controls and "evaluate.swap" not in done.written:
        evaluate.pop("swap", None)


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
