"""In which entries the data of a run differ from those of before."""

from core.training.inference_state import changed_data

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
