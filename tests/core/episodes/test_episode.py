import re
from dataclasses import replace

import numpy as np
import pytest

from core.episodes.episode import ActionConvention, Feature, number_repeated
from core.errors import DataError
from tests.factories import FEATURES, make_info

CONVENTION = ActionConvention(
    ("x", "y"), mode="delta", frame="world", rotation="none", scale=(0.02, 0.02), rate=10.0
)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 2)])
def test_an_action_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        DataError, match=re.escape(f"an action of shape {shape}: expected (2,), x, y")
    ):
        CONVENTION.check(np.zeros(shape))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(DataError, match="an action that is not finite"):
        CONVENTION.check(np.array([0.5, number], np.float32))


@pytest.mark.parametrize("action", [np.zeros(2, np.float32), [1e9, -1e9]])
def test_an_action_beyond_the_limits_is_the_environments_matter(action: np.ndarray) -> None:
    CONVENTION.check(action)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (((3, 0), "float32", "other"), r"shape \(3, 0\) is empty"),
        (((), "float", "other"), "dtype is 'float'; did you mean 'float"),
        (((), "float32", "force field"), "meaning is 'force field'; did you mean 'force'"),
        (((), "uint8", "text"), r"text is uint8 \(size\), not uint8 \(\)"),
        (((8,), "int8", "text"), r"text is uint8 \(size\), not int8 \(8,\)"),
    ],
)
def test_what_is_no_feature(feature: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Feature(*feature)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["front", "action", "proprio", "a/b", "", ".hidden"])
def test_names_that_a_feature_cannot_have(name: str) -> None:
    with pytest.raises(ValueError, match=f"feature '{name}': .* rename it"):
        make_info(features={name: FEATURES["force"]})


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (("x", "y"), ("x", "y")),
        (("x", "gripper", "gripper"), ("x", "gripper_0", "gripper_1")),
        (("x", "x_0", "x"), ("x_1", "x_0", "x_2")),
        (("", ""), ("_0", "_1")),
        ((), ()),
    ],
)
def test_names_that_occur_more_than_once_are_numbered(
    names: tuple[str, ...], unique: tuple[str, ...]
) -> None:
    assert number_repeated(names) == unique
    assert number_repeated(unique) == unique


def test_two_numbers_never_have_one_name() -> None:
    names = ("x", "gripper", "gripper")
    action = ActionConvention(names, "absolute", "joint", "none", (1.0, 1.0, 1.0), rate=10.0)
    info = replace(make_info(), proprio=names)
    assert action.names == info.proprio == ("x", "gripper_0", "gripper_1")


def test_units_belong_to_all_numbers_or_to_none() -> None:
    with pytest.raises(ValueError, match=r"^units has 1 entries for 4 numbers: \('x', 'y'"):
        replace(make_info().action, units=("m",))
    with pytest.raises(ValueError, match=r"^proprio_units has 2 entries for 3 numbers"):
        replace(make_info(), proprio_units=("m", "m"))
