"""Makes a JSON Schema of recipes from the registered components, for completion in editors."""

from typing import Any

from pydantic import TypeAdapter

from core.recipe.contents import ALWAYS_TRAINED, MONITORS, PARTS
from core.recipe.sections import DEFAULT_OPTIMIZER, ENVIRONMENT_SECTIONS, SECTIONS
from core.registry.catalogue import Catalogue
from core.registry.components import parameters_of
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import SETTINGS_OF_KIND, PartSettings


def recipe_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema (draft 2020-12) of every recipe that these components allow."""
    definitions: dict[str, Any] = {}
    sections = {name: _object(config, definitions) for name, config in SECTIONS.items()}
    for key, kind in MONITORS.items():
        named = {"enum": [component.name for component in catalogue[kind]]}
        tables = _component(kind, catalogue, definitions, {})
        sections["train"]["properties"][key]["items"] = {"anyOf": [named, tables]}
    sections["optimizer"] = _component("optimizer", catalogue, definitions, {}, DEFAULT_OPTIMIZER)
    for kind in PARTS:
        sections[kind] = _part(kind, catalogue, definitions, SETTINGS_OF_KIND.get(kind))
    auxiliary = _part("policy_head", catalogue, definitions, SETTINGS_OF_KIND["auxiliary"])
    sections["auxiliary"] = {"type": "array", "items": auxiliary}
    sections["environment"] = _component("environment", catalogue, definitions, {})
    sections |= {
        name: _object(config, definitions) for name, config in ENVIRONMENT_SECTIONS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Joinery recipe",
        "type": "object",
        "properties": sections,
        "required": ["data", *PARTS],
        "dependentRequired": {name: ["environment"] for name in ENVIRONMENT_SECTIONS},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _part(
    kind: ComponentKind,
    catalogue: Catalogue,
    definitions: dict[str, Any],
    kind_settings: type | None,
) -> dict[str, Any]:
    """Return the schema of a part's section.

    kind_settings: the settings that only this kind of part has.
    """
    settings = _object(PartSettings, definitions)["properties"]
    if kind_settings is not None:
        settings |= _object(kind_settings, definitions)["properties"]
    if kind in ALWAYS_TRAINED:
        settings["train"] = {"const": True}
    return _component(kind, catalogue, definitions, settings)


def _component(
    kind: ComponentKind,
    catalogue: Catalogue,
    definitions: dict[str, Any],
    shared: dict[str, Any],
    default: str | None = None,
) -> dict[str, Any]:
    """Return the schema of a section that names a component, with a variant for each component.

    shared: {key: schema} of the keys that the section can have with every component.
    default: the component of a section without a name; None if a name is required.
    """
    variants: list[Any] = []
    for component in catalogue[kind]:
        variant = _object(component.config, definitions)
        variant["properties"] = {
            "name": {"const": component.name},
            **shared,
            **variant["properties"],
        }
        if component.name != default:
            variant["required"] = ["name", *variant.get("required", [])]
        variants.append(variant)
    # if no component of this kind is registered, no section of this kind is valid
    return {"type": "object", "oneOf": variants or [False]}


def _object(config: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a dataclass; the dataclasses inside it are added to `definitions`."""
    schema = TypeAdapter(config).json_schema()
    definitions.update(schema.pop("$defs", {}))
    schema.setdefault("properties", {})
    for parameter in parameters_of(config):
        schema["properties"][parameter.name]["description"] = parameter.meaning
    schema["additionalProperties"] = False
    schema["description"] = (config.__doc__ or "").partition("\n")[0]
    return schema
