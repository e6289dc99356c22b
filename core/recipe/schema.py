"""The JSON Schema of recipes, generated from the registered components: editors complete and check
recipes with it.
"""

from typing import Any

from pydantic import TypeAdapter

from core.recipe.recipe import ALWAYS_TRAINED, PARTS
from core.recipe.sections import GENERAL, OPTIONAL
from core.registry.catalogue import Catalogue
from core.registry.components import parameters_of
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import OF_KIND, PartSettings


def recipe_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema (draft 2020-12) of every recipe that these components allow."""
    definitions: dict[str, Any] = {}
    sections = {name: _object(config, definitions) for name, config in GENERAL.items()}
    sections |= {kind: _part(kind, catalogue, definitions, OF_KIND.get(kind)) for kind in PARTS}
    auxiliary = _part("policy_head", catalogue, definitions, OF_KIND["auxiliary"])
    sections["auxiliary"] = {"type": "array", "items": auxiliary}
    sections["environment"] = _component("environment", catalogue, definitions, {})
    sections |= {name: _object(config, definitions) for name, config in OPTIONAL.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Joinery recipe",
        "type": "object",
        "properties": sections,
        "required": ["data", *PARTS],
        "dependentRequired": {name: ["environment"] for name in OPTIONAL},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _part(
    kind: ComponentKind, catalogue: Catalogue, definitions: dict[str, Any], role: type | None
) -> dict[str, Any]:
    """role: the settings that only this kind of part has."""
    settings = _object(PartSettings, definitions)["properties"]
    if role is not None:
        settings |= _object(role, definitions)["properties"]
    if kind in ALWAYS_TRAINED:
        settings["train"] = {"const": True}
    return _component(kind, catalogue, definitions, settings)


def _component(
    kind: ComponentKind, catalogue: Catalogue, definitions: dict[str, Any], shared: dict[str, Any]
) -> dict[str, Any]:
    """One variant per component; shared: what all of them take beside their own keys."""
    variants: list[Any] = []
    for component in catalogue[kind]:
        variant = _object(component.config, definitions)
        variant["properties"] = {
            "name": {"const": component.name},
            **shared,
            **variant["properties"],
        }
        variant["required"] = ["name", *variant.get("required", [])]
        variants.append(variant)
    return {
        "type": "object",
        "oneOf": variants or [False],
    }  # what nobody offers, no recipe can name


def _object(config: type, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = TypeAdapter(config).json_schema()
    definitions.update(schema.pop("$defs", {}))
    schema.setdefault("properties", {})
    for parameter in parameters_of(config):
        schema["properties"][parameter.name]["description"] = parameter.meaning
    schema["additionalProperties"] = False
    schema["description"] = (config.__doc__ or "").partition("\n")[0]
    return schema
