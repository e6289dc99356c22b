"""What a run records of the packages that its components come from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.recipe.contents import Recipe
from core.recipe.packages import (
    FILE,
    changed_packages,
    origins_of,
    read_origins,
    third_party_versions,
    write_origins,
)
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.registry.components import Plugin
from tests.core.recipe.test_recipe import MINIMAL, written


def recipe_with_head_of(recipe: Recipe, version: str, name: str = "lstm") -> Recipe:
    """Return a recipe whose policy head comes from another package."""
    part = recipe.parts["policy_head"]
    plugin = Plugin("flow_head", "joinery-flow-head", version)
    component = replace(part.component, plugin=plugin, name=name)
    return replace(
        recipe, parts={**recipe.parts, "policy_head": replace(part, component=component)}
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(written(tmp_path, MINIMAL), [], load_plugins())


def test_every_component_is_recorded(recipe: Recipe, tmp_path: Path) -> None:
    write_origins(tmp_path, recipe)
    assert read_origins(tmp_path) == origins_of(recipe)
    assert {"vision_encoder", "policy_head", "optimizer"} <= read_origins(tmp_path).keys()
    assert {origin.package for origin in read_origins(tmp_path).values()} == {"joinery"}
    assert list(changed_packages(tmp_path, recipe)) == []


def test_another_version_is_told_once_and_the_earlier_one_is_kept(
    recipe: Recipe, tmp_path: Path
) -> None:
    write_origins(tmp_path, recipe_with_head_of(recipe, "0.1.0"))
    newer = recipe_with_head_of(recipe, "0.2.0")
    assert list(changed_packages(tmp_path, newer)) == [
        "policy_head: lstm was of joinery-flow-head 0.1.0 when this run last trained, and is of "
        "joinery-flow-head 0.2.0 now"
    ]
    write_origins(tmp_path, newer)
    write_origins(tmp_path, newer)
    head = read_origins(tmp_path)["policy_head"]
    assert str(head) == "lstm of joinery-flow-head 0.2.0 (before: 0.1.0)"
    assert list(changed_packages(tmp_path, newer)) == []


def test_a_missing_component_of_a_run_says_what_to_install(recipe: Recipe, tmp_path: Path) -> None:
    write_origins(tmp_path, recipe_with_head_of(recipe, "0.1.0", name="small_flow"))
    text = recipe.as_toml().replace('name = "lstm"', 'name = "small_flow"')
    with pytest.raises(
        ConfigError,
        match=r"no policy_head is called 'small_flow'.*; this run used 'small_flow' of "
        r"joinery-flow-head 0\.1\.0: pip install joinery-flow-head==0\.1\.0",
    ):
        load_recipe(written(tmp_path, text), [], load_plugins())


@pytest.mark.parametrize("content", [None, "{", "[]", '{"policy_head": {"colour": "red"}}'])
def test_a_missing_or_damaged_file_costs_only_advice(
    recipe: Recipe, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / FILE).write_text(content)
    assert read_origins(tmp_path) == {}
    write_origins(tmp_path, recipe)
    assert json.loads((tmp_path / FILE).read_text())["optimizer"]["name"] == "adamw"


def test_packages_of_others_are_results_conditions(recipe: Recipe) -> None:
    assert third_party_versions(recipe, environment=False) == {}
    strange = recipe_with_head_of(recipe, "0.1.0")
    assert third_party_versions(strange, environment=False) == {"joinery-flow-head": "0.1.0"}
    assert third_party_versions(strange, environment=True) == {}
