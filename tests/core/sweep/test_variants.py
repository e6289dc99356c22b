"""Which variants there are, what they are called, and how they change a recipe."""

from pathlib import Path

import pytest

from core.errors import ConfigError
from core.recipe.checking import parse_value
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.sweep.config import Range, SearchConfig, check_sweep
from core.sweep.variants import Variant, base_variants, draws, toml_text, with_values


def variants(recipe: Path, **values: object) -> list[Variant]:
    return base_variants(check_sweep({"recipes": [str(recipe)], **values}, "a"))


def names(recipe: Path, **values: object) -> list[str]:
    return [variant.name for variant in variants(recipe, **values)]


def test_a_recipe_alone_is_a_variant(recipe: Path) -> None:
    assert variants(recipe) == [Variant("base", recipe, ())]


def test_every_combination_is_a_variant(recipe: Path) -> None:
    other = recipe.with_name("other.toml")
    other.write_text(recipe.read_text())
    grid = {"train.batch_size": [8, 16], "policy_head.name": ["lstm", "discrete"]}
    found = names(recipe, recipes=[str(recipe), str(other)], variant=[{"name": "v"}], grid=grid)
    assert len(found) == 8
    assert found[1] == "base,v,batch_size=8,discrete"
    assert names(recipe, grid={"a.b": [1], "c.b": [1e-5]}) == ["a.b=1,c.b=1e-05"]
    assert names(recipe, grid={"train.betas": [[0.9, 0.95]]}) == ["betas=0.9_0.95"]


def test_another_component_comes_with_its_defaults(recipe: Path) -> None:
    grid = {"policy_head.hidden_size": [64], "policy_head.name": ["lstm"]}
    (variant,) = variants(recipe, grid=grid)
    loaded = load_recipe(recipe, variant.overrides, load_plugins())
    head = loaded.parts["policy_head"].as_dict()
    # its own component keeps its other keys
    assert (head["hidden_size"], head["layers"]) == (64, 1)
    (variant,) = variants(recipe, grid={"policy_head.name": ["discrete"]})
    assert variant.overrides == ('policy_head={name = "discrete"}',)
    load_recipe(recipe, variant.overrides, load_plugins())


def test_overrides_of_all_come_before_those_of_a_variant(recipe: Path) -> None:
    (variant,) = variants(
        recipe,
        overrides=["train.steps=1"],
        variant=[{"name": "v", "overrides": ["train.steps=2"]}],
        grid={"train.steps": [3]},
    )
    assert variant.overrides == ("train.steps=1", "train.steps=2", "train.steps=3")


@pytest.mark.parametrize(
    "value",
    ["lstm", "0.5", "a 'b' \"c\" \\ ü", True, 3, 1e-5, -0.25, [1, [2.0, "a"]], {"a-b c": {"d": 1}}],
    ids=repr,
)
def test_values_are_read_as_they_were(value: object) -> None:
    assert parse_value(toml_text(value)) == value


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"grid": {"a.b": ["x y", "x_y"]}}, "two variants are called 'b=x_y'"),
        ({"variant": [{"name": "Wide"}, {"name": "wide"}]}, "two variants are called 'Wide'"),
        ({"variant": [{"name": "../up"}]}, "variant '../up': expected a name of"),
        ({"variant": [{"name": "aé"}]}, "variant 'aé': expected a name of"),
        ({"variant": [{"name": "plan.json"}]}, "a sweep's own files end in .json; name it"),
        ({"variant": [{"name": "n" * 121}]}, "expected a name of at most 120 letters"),
    ],
)
def test_names_are_those_of_folders(recipe: Path, values: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        variants(recipe, **values)


def test_draws_are_a_function_of_the_seed() -> None:
    ranges = {
        "train.learning_rate": Range(1e-4, 1e-2, log=True),
        "backbone.depth": Range(1, 4),
        "train.weight_decay": Range(0, 0.5),
        "optimizer.name": ("adamw", "sgd"),
    }
    drawn = draws(SearchConfig(ranges, trials=40))
    assert drawn[:7] == draws(SearchConfig(ranges, trials=7)), "more trials keep the first ones"
    assert drawn != draws(SearchConfig(ranges, trials=40, seed=1))
    rates = [values["train.learning_rate"] for values in drawn]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 10 < sum(rate < 1e-3 for rate in rates) < 30
    assert all(float(f"{rate:.3g}") == rate for rate in rates)
    assert {values["backbone.depth"] for values in drawn} == {1, 2, 3, 4}
    assert {values["optimizer.name"] for values in drawn} == {"adamw", "sgd"}


def test_there_must_be_enough_to_draw() -> None:
    with pytest.raises(ConfigError, match="expected 5 combinations, found only 2 different"):
        draws(SearchConfig({"a.b": (1, 2)}, trials=5))


def test_drawn_values_are_in_the_name(recipe: Path) -> None:
    base = Variant("base", recipe, ("train.steps=1",))
    chosen = with_values(base, {"train.learning_rate": 0.001, "policy_head.name": "discrete"}, True)
    assert chosen.name == "base,learning_rate=0.001,discrete"
    head = 'policy_head={name = "discrete"}'
    assert chosen.overrides == ("train.steps=1", head, "train.learning_rate=0.001")
