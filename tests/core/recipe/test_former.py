"""Recipes of earlier versions still say what they said."""

import subprocess
import sys

import pytest

from core.recipe.former import move_attention, present_name, rename_former_keys
from core.registry.catalogue import load_plugins


def test_former_keys_get_their_present_names():
    values = {"evaluate": {"lanes": 8, "execute": 2, "episodes": 5}, "train": {"lanes": 1}}
    rename_former_keys(values)
    assert values == {
        "evaluate": {"num_envs": 8, "replan_steps": 2, "episodes": 5},
        "train": {"lanes": 1},
    }


@pytest.mark.parametrize(
    "values", [{}, {"evaluate": 3}, {"evaluate": {"lanes": 8, "num_envs": 4}}], ids=str
)
def test_other_recipes_stay_as_they_are(values):
    before = {**values}
    rename_former_keys(values)
    assert values == before


def test_a_name_belongs_to_its_section():
    assert present_name("evaluate", "lanes") == "num_envs"
    assert present_name("evaluate", "episodes") == "episodes"
    assert present_name("train", "lanes") == "lanes"


def test_attention_moves_to_the_action_tokens():
    values = {
        "backbone": {"name": "transformer", "attention": "prefix"},
        "action_tokens": {"name": "learned"},
    }
    move_attention(values, load_plugins())
    assert values == {
        "backbone": {"name": "transformer"},
        "action_tokens": {"name": "learned", "attention": "prefix"},
    }


@pytest.mark.parametrize(
    ("backbone", "tokens"),
    [
        ({"name": "transformer"}, {"name": "learned"}),
        ({"name": "transformer", "attention": "prefix"}, {"name": "unknown"}),
        (
            {"name": "transformer", "attention": "prefix"},
            {"name": "learned", "attention": "causal"},
        ),
    ],
)
def test_attention_stays_where_it_cannot_move(backbone, tokens):
    values = {"backbone": {**backbone}, "action_tokens": {**tokens}}
    move_attention(values, load_plugins())
    assert values == {"backbone": backbone, "action_tokens": tokens}


def test_only_the_standard_library_is_imported():
    program = (
        "import sys, core.recipe.former; "
        "print({'numpy', 'torch', 'pydantic', 'pluggy'} & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
