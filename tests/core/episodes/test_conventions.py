"""Conversion of actions between conventions, against MuJoCo and float64; refusals."""

from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from core.episodes.conventions import (
    Conversion,
    incompatibilities,
    merge_conventions,
    rotation_columns,
    rotation_names,
)
from core.episodes.episode import ActionConvention, Gripper
from core.episodes.rotations import SIZES, to_rotation

NAMES = {
    3: ("rx", "ry", "rz"),
    4: ("q0", "q1", "q2", "q3"),
    6: ("r0", "r1", "r2", "r3", "r4", "r5"),
}


def convention(rotation: Any = "axis_angle", **changes: Any) -> ActionConvention:
    """Three position dimensions, a rotation, and a binary gripper that is open at 1."""
    rotation_dimensions = NAMES.get(SIZES[rotation], ())  # type: ignore[index]
    names = ("x", "y", "z", *rotation_dimensions, "gripper")
    default = ActionConvention(
        names=names,
        mode="absolute",
        frame="base",
        rotation=rotation,
        scale=(1.0,) * len(names),
        rate=10.0,
        grippers=(Gripper(len(names) - 1, "binary", closed=0.0, open=1.0),),
    )
    return replace(default, **changes)


def actions_of(source: ActionConvention, seed: int, count: int = 30, stride: int = 1) -> np.ndarray:
    """(n stride A): positions, a rotation in the source's layout, a gripper in its two states."""
    random = np.random.default_rng(seed)
    actions = random.normal(size=(count, stride, source.dim))
    for gripper in source.grippers:
        is_open = random.random((count, stride)) > 0.5
        actions[..., gripper.dimension] = np.where(is_open, gripper.open, gripper.closed)
    return actions.astype(np.float32)


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 2**31))
@pytest.mark.parametrize(
    "layout", ["euler_xyz", "axis_angle", "quaternion_xyzw", "quaternion_wxyz", "rotation_6d"]
)
@pytest.mark.parametrize(
    "other", ["euler_xyz", "axis_angle", "quaternion_xyzw", "quaternion_wxyz", "rotation_6d"]
)
def test_the_rotation_is_the_same_in_any_layout(layout: Any, other: Any, seed: int) -> None:
    source, target = convention(layout), convention(other)
    actions = actions_of(source, seed)
    assert not list(incompatibilities(source, target, 1.0))
    converted = Conversion(source, target)(actions)
    before = to_rotation(actions[:, 0, rotation_columns(source)].astype(np.float64), layout)
    after = to_rotation(converted[:, rotation_columns(target)].astype(np.float64), other)
    np.testing.assert_allclose(after.as_matrix(), before.as_matrix(), atol=1e-5)
    np.testing.assert_array_equal(converted[:, [0, 1, 2, -1]], actions[:, 0, [0, 1, 2, -1]])


def test_the_identity_changes_no_bit() -> None:
    conversion = Conversion(convention(), convention())
    actions = actions_of(convention(), 1)
    assert conversion.is_identity
    assert conversion.has_dimension.all()
    np.testing.assert_array_equal(conversion(actions), actions[:, 0])


@pytest.mark.parametrize(("closed", "opened"), [(1.0, -1.0), (-1.0, 1.0), (0.08, 0.0)])
@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_a_gripper_is_as_open_as_before(closed: float, opened: float, kind: Any) -> None:
    source = convention()
    target = convention(grippers=(Gripper(6, kind, closed=closed, open=opened),))
    actions = actions_of(source, 2)
    assert not list(incompatibilities(source, target, 1.0))
    converted = Conversion(source, target)(actions)[:, 6]
    np.testing.assert_allclose(
        converted, np.where(actions[:, 0, 6] == 1, opened, closed), atol=1e-7
    )


def test_units_are_scaled() -> None:
    source = convention(scale=(0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1.0))
    actions = actions_of(source, 3)
    converted = Conversion(source, convention())(actions)
    np.testing.assert_allclose(
        converted[:, :3], 0.02 * actions[:, 0, :3].astype(np.float64), rtol=1e-6
    )
    np.testing.assert_allclose(
        converted[:, 3:6], 0.05 * actions[:, 0, 3:6].astype(np.float64), rtol=1e-6
    )


def test_a_slower_rate_adds_up_movements_and_composes_rotations() -> None:
    source = convention(mode="delta", rate=30.0)
    target = convention(mode="delta", rate=10.0)
    assert not list(incompatibilities(source, target, 3.0))
    actions = actions_of(source, 4, stride=3)
    converted = Conversion(source, target, 3)(actions)
    exact = actions.astype(np.float64)
    np.testing.assert_allclose(converted[:, :3], exact[..., :3].sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(converted[:, 6], actions[:, -1, 6])
    for row, action in zip(exact, converted, strict=True):
        total = np.array([1.0, 0, 0, 0])
        for step in row[:, 3:6]:
            angle, product, quaternion = np.linalg.norm(step), np.zeros(4), np.zeros(4)
            mujoco.mju_axisAngle2Quat(quaternion, step / angle, angle)
            mujoco.mju_mulQuat(product, quaternion, total)
            total = product
        expected = np.zeros(9)
        mujoco.mju_quat2Mat(expected, total)
        np.testing.assert_allclose(
            to_rotation(action[None, 3:6], "axis_angle").as_matrix()[0].ravel(), expected, atol=1e-5
        )


def test_at_a_slower_rate_the_last_position_of_each_stride_counts() -> None:
    source, target = convention(rate=20.0), convention(rate=10.0)
    actions = actions_of(source, 5, stride=2)
    np.testing.assert_array_equal(Conversion(source, target, 2)(actions), actions[:, 1])


def test_dimensions_that_the_source_lacks_are_zero_and_marked() -> None:
    bigger = convention(
        rotation="none",
        names=("x", "y", "z", "w", "gripper"),
        scale=(1.0,) * 5,
        grippers=(Gripper(4, "binary", closed=0.0, open=1.0),),
    )
    source = convention(rotation="none")
    conversion = Conversion(source, bigger)
    actions = actions_of(source, 6)
    assert conversion.has_dimension.tolist() == [True, True, True, False, True]
    np.testing.assert_array_equal(conversion(actions)[:, conversion.has_dimension], actions[:, 0])
    assert not conversion(actions)[:, 3].any()


UNITS = ("m", "m", "m", "rad", "rad", "rad", "")
REFUSED = [
    ({"mode": "delta"}, {}, 1.0, "robot's pose at every frame, so"),
    ({"frame": "world"}, {}, 1.0, "needs the robot's pose at every frame"),
    ({"rotation": "euler_xyz", "mode": "delta"}, {"mode": "delta"}, 1.0, "a difference of angles"),
    ({"rate": 15.0}, {}, 1.5, "which must be a whole number"),
    ({"rate": 5.0}, {}, 0.5, "slowest store first"),
    ({"rate": 20.0}, {}, 1.0, "do not agree with 1 frames here"),
    (
        {"mode": "delta", "frame": "tool", "rate": 20.0},
        {"mode": "delta", "frame": "tool"},
        2.0,
        "do not add up",
    ),
    (
        {"rotation": "euler_xyz", "mode": "delta", "rate": 20.0},
        {"rotation": "euler_xyz", "mode": "delta"},
        2.0,
        "a difference of angles",
    ),
    (
        {"grippers": (Gripper(6, "continuous", closed=0.0, open=1.0),)},
        {},
        1.0,
        "which value divides them",
    ),
    ({"grippers": ()}, {}, 1.0, "drives a gripper on one side only"),
    ({}, {"scale": (0.0, 1, 1, 1, 1, 1, 1)}, 1.0, "has scale 0"),
    ({"units": ("mm", *UNITS[1:])}, {"units": UNITS}, 1.0, "'x' is in mm here, in m there"),
]


@pytest.mark.parametrize(("source", "target", "ratio", "reason"), REFUSED)
def test_what_is_not_exact_is_refused_with_the_reason(
    source: Any, target: Any, ratio: float, reason: str
) -> None:
    reasons = list(incompatibilities(convention(**source), convention(**target), ratio))
    assert len(reasons) == 1, reasons
    assert reason in reasons[0]


def test_a_rotation_that_cannot_be_found_is_refused() -> None:
    odd = convention(
        names=("x", "y", "rx", "ry", "rz", "force", "more", "gripper"),
        scale=(1.0,) * 8,
        grippers=(Gripper(7, "binary", closed=0.0, open=1.0),),
    )
    assert any(
        "is not clear" in line
        for line in incompatibilities(odd, convention("quaternion_xyzw"), 1.0)
    )


def test_merged_conventions_begin_with_the_dimensions_of_the_first() -> None:
    second = convention(
        "quaternion_xyzw",
        names=("x", "y", "z", "q0", "q1", "q2", "q3", "thumb"),
        grippers=(Gripper(7, "binary", closed=5.0, open=6.0),),
    )
    merged = merge_conventions([convention(), second])
    assert merged.names == ("x", "y", "z", "rx", "ry", "rz", "gripper", "thumb")
    assert merged.rotation == "axis_angle"
    assert [(g.dimension, g.closed) for g in merged.grippers] == [(6, 0.0), (7, 5.0)]
    assert Conversion(second, merged).has_dimension.tolist() == [True] * 6 + [False, True]


def test_units_that_are_not_known_fit_all_others() -> None:
    known, unknown = convention(units=UNITS), convention()
    for source, target in ((known, unknown), (unknown, known)):
        assert list(incompatibilities(source, target, 1.0)) == []
        assert Conversion(source, target).is_identity


def test_merged_conventions_have_the_units_that_are_known() -> None:
    names = ("x", "y", "z", "rx", "ry", "rz", "thumb")
    second = convention(names=names, grippers=(), units=("", "", "", "", "", "", "N"))
    assert merge_conventions([convention(), second]).units == (*[""] * 7, "N")
    assert merge_conventions([convention(units=UNITS), second]).units == (*UNITS, "N")
    assert merge_conventions([convention(), convention(names=names, grippers=())]).units == ()


def test_rotation_dimensions_are_found_by_name_after_merging() -> None:
    rotation_only = convention(
        names=("rx", "ry", "rz"), scale=(1.0,) * 3, grippers=(), mode="delta"
    )
    fast = convention(
        names=("x", "y", "z", "rx", "ry", "rz"),
        scale=(1.0,) * 6,
        grippers=(),
        mode="delta",
        rate=20.0,
    )
    merged = merge_conventions([rotation_only, fast])
    names = rotation_names([rotation_only, fast])
    assert (merged.names, names) == (("rx", "ry", "rz", "x", "y", "z"), ("rx", "ry", "rz"))
    assert not list(incompatibilities(fast, merged, 2.0, names))
    steps = np.array([[[1.0, 0, 0, 0.1, 0, 0], [1.0, 0, 0, 0.1, 0, 0]]], np.float32)
    converted = Conversion(fast, merged, 2, names)(steps)
    np.testing.assert_allclose(converted, [[0.2, 0, 0, 2.0, 0, 0]], atol=1e-6)


def test_a_rotation_with_scale_zero_is_refused() -> None:
    target = convention("quaternion_xyzw", scale=(1.0, 1, 1, 0, 0, 0, 0, 1))
    assert any(
        "rotation has scale 0" in line for line in incompatibilities(convention(), target, 1.0)
    )
