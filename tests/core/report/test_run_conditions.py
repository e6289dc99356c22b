"""The conditions of evaluations in words, and in which of them evaluations differ."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from core.report.run_conditions import NOT_RECORDED, condition_groups, differing_conditions
from core.rollout.results import Evaluation, read_evaluation
from tests.core.report.factories import make_evaluation

SHIPPED = Path(__file__).parents[3] / "docs" / "tabletop_full" / "results.json"
EVALUATION = make_evaluation("run")


def changed(group: str, **values: object) -> Evaluation:
    return replace(EVALUATION, **{group: {**getattr(EVALUATION, group), **values}})


def differences(*evaluations: Evaluation | None) -> dict[str, list[str]]:
    """{name of a condition: texts}, of all groups."""
    groups = differing_conditions(evaluations)
    return {line.name: list(line.texts) for lines in groups.values() for line in lines}


def test_conditions_are_words_with_units():
    groups = condition_groups(read_evaluation(SHIPPED))
    assert groups["Speed"] == {
        "policy step, median": "24.5 ms",
        "control steps of all environments": "150 per second",
        "duration": "4 min 40 s",
    }
    assert groups["Protocol and seeds"]["controls"] == "images blanked, words swapped"
    assert groups["Protocol and seeds"]["words that are swapped"] == "red, green, blue"
    assert groups["Policy"]["parameters"] == "1,986,307"
    assert groups["Environment"]["image size"] == "64"
    written = [name for group in groups.values() for name in group]
    assert not [name for name in written if "_" in name]
    assert len(set(written)) == len(written)


def test_equal_conditions_are_no_difference():
    other = replace(EVALUATION, time={"seconds": 9.0}, episodes=(), chains=())
    policy = {**other.policy, "run": "b", "recipe_sha256": "00", "parameters": 1}
    assert differing_conditions([EVALUATION, replace(other, policy=policy)]) == {}
    assert differing_conditions([EVALUATION, None]) == {}


@pytest.mark.parametrize(
    ("group", "values", "name", "text"),
    [
        ("protocol", {"execute": 5}, "actions executed of each chunk", "5"),
        ("protocol", {"episodes": 1234}, "attempts at each task", "1,234"),
        ("protocol", {"first_seed": 1_000_500}, "first seed", "1000500"),
        ("protocol", {"device": "NVIDIA H200"}, "device", "NVIDIA H200"),
        ("protocol", {"max_steps": {"a": 9, "b": 9}}, "control steps allowed", "9"),
        ("protocol", {"max_steps": {"a": 9, "b": 7}}, "control steps allowed", "a 9, b 7"),
        ("protocol", {"new_key": 0.1234567}, "new key", "0.1235"),
        ("policy", {"checkpoint": "step_2"}, "checkpoint", "step_2"),
        ("policy", {"packages": {"lab": "2"}}, "packages of its parts, lab", "2"),
        ("policy", {"trained_on": {"lab": "a robot"}}, "lab", "a robot"),
        (
            "policy",
            {"trained_on": {"lab": "simulated; versions joinery 0.1, mujoco 3.3.0"}},
            "lab, recorded with mujoco",
            "3.3.0",
        ),
        ("environment", {"config": {"max_steps": 10}}, "max steps", "10"),
        ("environment", {"versions": {"mujoco": "3.4.0"}}, "mujoco", "3.4.0"),
        ("environment", {"name": "calvin"}, "environment", "calvin"),
    ],
)
def test_each_difference_has_a_line(group, values, name, text):
    assert differences(EVALUATION, None, changed(group, **values))[name][1:] == ["-", text]


def test_what_an_earlier_version_did_not_record_is_said():
    protocol = {key: value for key, value in EVALUATION.protocol.items() if key != "execute"}
    found = differences(EVALUATION, replace(EVALUATION, protocol=protocol))
    assert found == {"actions executed of each chunk": ["2", NOT_RECORDED]}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(["execute", "episodes", "controls", "max_steps", "step", "seconds", "x"])


@given(values=st.dictionaries(KEYS, PLAIN, max_size=4), config=PLAIN)
@settings(deadline=None, max_examples=50)
def test_any_values_of_strangers_can_be_written(values, config):
    values = {**values, "trained_on": config}
    stranger = replace(
        EVALUATION,
        protocol=values,
        policy=values,
        time=values,
        environment={"config": config, "versions": config, **values},
    )
    groups = condition_groups(stranger)
    assert all(isinstance(text, str) for group in groups.values() for text in group.values())
    differing_conditions([EVALUATION, stranger])
