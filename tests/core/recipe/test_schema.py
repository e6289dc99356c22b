"""The JSON Schema allows what `load_recipe` allows, with the meanings of the keys."""

import tomllib

import jsonschema
import pytest

from core.recipe.schema import recipe_schema
from core.registry.catalogue import load_plugins
from tests.core.recipe.test_recipe import MINIMAL, mistakes_of, written


def test_the_schema_refuses_what_the_recipe_refuses(tmp_path):
    schema = recipe_schema(load_plugins())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(MINIMAL), schema)
    for old, new in [
        ("path", "paht"),
        ('"lstm"', '"lstn"'),
        ('"lstm"', '"lstm"\nlayers = 0'),
        ("[backbone]", "[bb]"),
    ]:
        broken = MINIMAL.replace(old, new)
        assert mistakes_of(written(tmp_path, broken))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(broken), schema)


def test_a_key_has_its_type_default_and_meaning():
    train = recipe_schema(load_plugins())["properties"]["train"]
    assert train["additionalProperties"] is False
    steps = train["properties"]["steps"]
    assert (steps["type"], steps["default"], steps["exclusiveMinimum"]) == ("integer", 2000, 0)
    assert steps["description"] == "optimiser steps."


def test_a_part_offers_every_component_with_the_keys_of_every_part():
    backbone = recipe_schema(load_plugins())["properties"]["backbone"]
    variants = {variant["properties"]["name"]["const"]: variant for variant in backbone["oneOf"]}
    assert {"transformer", "identity"} <= variants.keys()
    assert {"depth", "train", "learning_rate"} <= variants["transformer"]["properties"].keys()
    assert variants["transformer"]["required"] == ["name"]


def test_parts_that_always_train_cannot_be_frozen():
    head = recipe_schema(load_plugins())["properties"]["policy_head"]
    assert all(variant["properties"]["train"] == {"const": True} for variant in head["oneOf"])


def test_the_optimizer_may_be_named_or_left_out():
    schema = recipe_schema(load_plugins())
    recipe = tomllib.loads(MINIMAL)
    for section in ({}, {"eps": 1e-7}, {"name": "adamw"}, {"name": "muon", "ns_steps": 3}):
        jsonschema.validate({**recipe, "optimizer": section}, schema)
    for section in ({"momentum": 0.9}, {"name": "adamw", "momentum": 0.9}, {"name": "adam"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**recipe, "optimizer": section}, schema)
