"""Overrides of the command line: every key that they write can be removed by them, too."""

import tomllib
from pathlib import Path

import pytest
import tomli_w

from core.errors import ConfigError
from core.recipe.contents import Recipe
from core.recipe.former import rename_former_keys
from core.recipe.overrides import override
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from tests.toy_command import install_toy

SHIPPED = Path(__file__).parents[3] / "recipes" / "kosmos_lstm.toml"
TEXT = """
[data]
path = "episodes.zarr"
[vision_encoder]
name = "timm_vit"
[text_encoder]
name = "sentencepiece"
[backbone]
name = "transformer"
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
layers = 2
[[auxiliary]]
name = "lstm"
label = "second"
[environment]
name = "toy"
cameras = 2
[demonstrations]
[evaluate]
controls = ["blank_images", "swapped_words"]
swap = ["red", "blue"]
control_episodes = 2
store = "lab"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    install_toy()
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def load(path: Path, *overrides: str) -> Recipe | str:
    """Return the recipe, or its mistakes."""
    try:
        return load_recipe(path, overrides, load_plugins())
    except ConfigError as error:
        return str(error)


def keys_of(text: str) -> list[str]:
    values = tomllib.loads(text)
    tables = {name: table for name, table in values.items() if isinstance(table, dict)}
    return [f"{name}.{key}" for name, table in tables.items() for key in table] + [*tables]


KEYS = keys_of(SHIPPED.read_text(encoding="utf-8"))


# a test below is about the keys that go together with the controls
@pytest.mark.parametrize("key", [key for key in KEYS if key != "evaluate.controls"])
def test_to_unset_a_key_or_a_section_is_to_leave_it_out(tmp_path, key):
    values = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    whole, shorter = tmp_path / "whole.toml", tmp_path / "shorter.toml"
    whole.write_text(tomli_w.dumps(values), encoding="utf-8")
    rename_former_keys(values)
    section, _, name = key.partition(".")
    (values[section] if name else values).pop(name or section)
    shorter.write_text(tomli_w.dumps(values), encoding="utf-8")
    expected, unset = load(shorter), load(whole, f"{key}=unset")
    if isinstance(expected, str):
        assert unset == expected.replace("shorter.toml", "whole.toml")
    else:
        assert unset == expected


def test_a_quoted_unset_is_a_text(path):
    assert load(path, "evaluate.store='unset'").evaluate.store == "unset"
    assert load(path, "evaluate.store=none").evaluate.store == "none"
    assert load(path, "evaluate.store=unset").evaluate.store is None


def test_overrides_apply_in_their_order(path):
    assert load(path, "evaluate.store=unset", "evaluate.store=a").evaluate.store == "a"
    assert load(path, "evaluate.store=a", "evaluate.store=unset").evaluate.store is None
    assert load(path, "policy_head.layers=unset").parts["policy_head"].config.layers == 4
    assert load(path, "environment={name = 'toy'}", "environment.cameras=unset").environment


def test_auxiliary_heads_can_be_left_out(path):
    assert list(load(path).auxiliary) == ["second"]
    assert load(path, "auxiliary=unset").auxiliary == {}
    assert "auxiliary=unset" in load(path, "auxiliary.weight=2")
    assert "unknown key" in load(path, "auxiliary.weight=unset")


@pytest.mark.parametrize(
    ("word", "mistake"),
    [
        ("evaluate.control_episode=unset", "did you mean 'control_episodes'?"),
        ("policy_head.layer=unset", "policy_head.layer: unknown key; did you mean 'layers'?"),
        ("policy_head.freez=unset", "policy_head.freez: unknown key; did you mean 'freeze'?"),
        ("environment.camera=unset", "environment.camera: unknown key; did you mean 'cameras'?"),
        ("evalute=unset", "[evalute]: unknown section; did you mean 'evaluate'?"),
        ("optimizer.epsilon=unset", "optimizer.epsilon: unknown key"),
        ("=unset", "expected section.key=unset"),
        ("train.=unset", "expected section.key=unset"),
        ("policy_head.name=unset", "policy_head.name: expected the name of a policy_head"),
    ],
)
def test_a_mistaken_unset_is_said(path, word, mistake):
    assert mistake in load(path, word)


def test_former_names_can_be_unset(tmp_path):
    values = {"evaluate": {"num_envs": 4}}
    assert override(values, ["evaluate.lanes=unset"]).unset == ["evaluate.num_envs"]
    assert values == {"evaluate": {}}


def test_controls_can_be_left_out_together_with_what_only_they_need(path):
    for words in (["evaluate.controls=[]"], ["evaluate.controls=unset"]):
        evaluate = load(path, *words).evaluate
        assert (evaluate.controls, evaluate.swap, evaluate.control_episodes) == ((), (), None)
    evaluate = load(path, "evaluate.controls=['blank_images']").evaluate
    assert (evaluate.swap, evaluate.control_episodes) == ((), 2)
    swapped = load(path, "evaluate.controls=['swapped_words']").evaluate
    assert swapped.swap == ("red", "blue")


def test_keys_of_controls_that_are_overridden_themselves_still_contradict(path):
    words = ("evaluate.controls=[]", "evaluate.control_episodes=3")
    assert "control_episodes has no effect without controls" in load(path, *words)
    words = ("evaluate.controls=['blank_images']", "evaluate.swap=['a', 'b']")
    assert "swap has no effect" in load(path, *words)
    assert "evaluate.controls: expected" in load(path, "evaluate.controls=3")
