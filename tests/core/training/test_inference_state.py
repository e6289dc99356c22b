"""In which entries the data of a run differ from those of before."""

from dataclasses import replace
from pathlib import Path

from core.loading.opening import open_data
from core.policy.trained_state import read_state
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.inference_state import changed_data, inference_state
from core.weights.checkpoint import Checkpoint
from tests.core.training.conftest import RECIPE
from tests.factories import make_info, make_store

DATA = {"fps": 10, "proprio": ["x"]}


def test_what_differs_is_named():
    assert changed_data(DATA, {**DATA, "fps": 5}) == ["fps"]
    assert changed_data(DATA, {**DATA, "features": {"depth": {}}}) == ["features"]


def test_what_the_data_no_longer_have_has_changed_too():
    assert changed_data({**DATA, "features": {"depth": {}}}, DATA) == ["features"]


def test_what_only_a_checkpoint_says_is_no_datum():
    assert changed_data({**DATA, "step": 3, "validation_error": 0.1}, DATA) == []
    assert changed_data({}, DATA) == []


def test_where_the_data_come_from_may_be_corrected():
    assert changed_data(DATA, {**DATA, "origins": {"lab": "a robot"}}) == []
    assert changed_data({**DATA, "origins": {"lab": "a robot"}}, DATA) == []


def test_units_are_read_back_and_change_nothing_where_they_are_not_known(tmp_path):
    action = replace(make_info().action, units=("m", "m", "m", "1"))
    known = replace(make_info(), action=action, proprio_units=("rad", "", "N"))
    states = {}
    for name, info in {"known": known, "unknown": make_info()}.items():
        (tmp_path / name).mkdir()
        make_store(tmp_path / name / "episodes.zarr", info=info)
        recipe = tmp_path / name / "small.toml"
        recipe.write_text(RECIPE)
        states[name] = inference_state(open_data(load_recipe(recipe, [], load_plugins())))
        read, _, _ = read_state(Checkpoint(Path("step"), states[name]))
        assert (read.action, read.proprio_units) == (info.action, info.proprio_units)
    assert "proprio_units" not in states["unknown"]
    assert "units" not in states["unknown"]["action_convention"]
