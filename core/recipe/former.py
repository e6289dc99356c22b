"""Compatibility with recipes of earlier versions: former names and former places of keys.

Only the standard library is imported here, so that a stored recipe.toml can be read without the
libraries that its run needed.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.registry.catalogue import Catalogue
    from core.registry.hookspecs import ComponentKind

# {section: {former name of a key: present name of the key}}; recipes, overrides and the recipe.toml
# of finished runs may use either name
FORMER_NAMES: Mapping[str, Mapping[str, str]] = {
    "evaluate": {"lanes": "num_envs", "execute": "replan_steps"},
}


def rename_former_keys(values: dict[str, Any]) -> None:
    """Give keys of earlier versions their present names, in place.

    values: a recipe as TOML holds it, {section: {key: value}}. If a section has both names of a
        key, the former name stays; `load_recipe` then reports it as an unknown key.
    """
    for section, names in FORMER_NAMES.items():
        table = values.get(section)
        if not isinstance(table, dict):
            continue
        for former, present in names.items():
            if former in table and present not in table:
                table[present] = table.pop(former)


def present_name(section: str, key: str) -> str:
    """Return the present name of a key; a key that was not renamed keeps its name."""
    return FORMER_NAMES.get(section, {}).get(key, key)


def move_attention(values: Mapping[str, Any], catalogue: "Catalogue") -> None:
    """Move backbone.attention, a key of version 0.1, to action_tokens.attention, in place.

    If the configuration of a third party's backbone has a key `attention`, nothing is moved.
    """

    def has_attention_key(kind: "ComponentKind", section: dict[str, Any]) -> bool:
        component = catalogue[kind].get(str(section.get("name")))
        return component is not None and "attention" in {f.name for f in fields(component.config)}

    backbone, tokens = values.get("backbone"), values.get("action_tokens")
    if not isinstance(backbone, dict) or not isinstance(tokens, dict):
        return
    if "attention" not in backbone or "attention" in tokens:
        return
    if has_attention_key("action_tokens", tokens) and not has_attention_key("backbone", backbone):
        tokens["attention"] = backbone.pop("attention")
