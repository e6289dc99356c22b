"""Numbers, durations and settings are written for readers, alike on every page."""

import math

import pytest
from hypothesis import given, strategies as st

from core.report.wording import duration, interval, label, percent, settings, significant, text


@pytest.mark.parametrize(
    ("share", "written"), [(1, "100%"), (0.875, "87.5%"), (0, "0%"), (0.12345, "12.3%")]
)
def test_a_share_is_a_percentage(share, written):
    assert percent(share) == written


def test_both_ends_of_an_interval_are_written_alike():
    assert interval((0.9787, 0.9968)) == "97.9 to 99.7%"
    assert interval((0.839, 1.0)) == "83.9 to 100%"
    assert interval((0.0, 0.49)) == "0 to 49%"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_measurement_keeps_its_first_digits(value):
    written = significant(value)
    assert float(written.replace(",", "")) == pytest.approx(value, rel=0.005)
    assert "e+" not in written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (24.51326575, "24.5"),
        (0.00004, "4e-05"),
        (999.96, "1,000"),
        (12345.6, "12,346"),
        (0.0, "0"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_a_measurement_is_short(value, written):
    assert significant(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.9, "0.9 s"),
        (20.1, "20.1 s"),
        (59.9, "1 min 0 s"),
        (90, "1 min 30 s"),
        (7250, "2 h 0 min"),
    ],
)
def test_a_duration_has_units_of_its_size(seconds, written):
    assert duration(seconds) == written


def test_settings_are_words_and_not_json():
    values = {
        "first_seed": 1000000,
        "inference": 24.51326575,
        "tasks": ["lift_red", "stack"],
        "swap": [],
        "store": None,
        "replayable": False,
        "camera": {"image_size": 64, "crop": {"left_edge": [1, 2]}},
        "joints": [{"upper_limit": 2.5}],
    }
    assert settings(values) == {
        "first seed": "1000000",
        "inference": "24.51",
        "tasks": "lift_red, stack",
        "swap": "none",
        "store": "none",
        "replayable": "no",
        "camera, image size": "64",
        "camera, crop, left edge": "1, 2",
        "joints": "upper limit 2.5",
    }


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), PLAIN))
def test_whatever_json_holds_can_be_written(values):
    assert all(isinstance(word, str) for pair in settings(values).items() for word in pair)


@given(PLAIN)
def test_every_value_can_be_written(value):
    assert isinstance(text(value), str)


def test_a_name_of_underscores_is_kept():
    assert (label("_"), label("control_episodes")) == ("_", "control episodes")
