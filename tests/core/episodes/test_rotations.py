"""Layouts of rotations, against MuJoCo's arithmetic."""

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from core.episodes.rotations import SIZES, from_rotation, to_rotation

LAYOUTS = [layout for layout in SIZES if layout != "none"]


def random_quaternions(seed: int, count: int = 20) -> np.ndarray:
    """Uniform over all rotations, w first."""
    quaternions = np.random.default_rng(seed).normal(size=(count, 4))
    return quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)


def matrix_of(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def numbers_of(quaternion: np.ndarray, layout: str) -> np.ndarray:
    """The rotation in a layout, by MuJoCo or by hand."""
    if layout == "quaternion_wxyz":
        return quaternion
    if layout == "quaternion_xyzw":
        return np.array([*quaternion[1:], quaternion[0]])
    if layout == "rotation_6d":
        return matrix_of(quaternion)[:2].ravel()
    velocity = np.zeros(3)
    mujoco.mju_quat2Vel(velocity, quaternion, 1.0)
    return velocity


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "euler_xyz"])
@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 2**31))
def test_layouts_agree_with_mujoco(layout: str, seed: int) -> None:
    quaternions = random_quaternions(seed)
    rotations = to_rotation(np.array([numbers_of(q, layout) for q in quaternions]), layout)  # type: ignore[arg-type]
    np.testing.assert_allclose(
        rotations.as_matrix(), [matrix_of(q) for q in quaternions], atol=1e-12
    )


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 2**31))
def test_euler_angles_turn_about_fixed_axes(seed: int) -> None:
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, (20, 3))
    expected = []
    for triple in angles:
        quaternion = np.zeros(4)
        mujoco.mju_euler2Quat(quaternion, triple, "XYZ")
        expected.append(matrix_of(quaternion))
    np.testing.assert_allclose(to_rotation(angles, "euler_xyz").as_matrix(), expected, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 2**31))
def test_from_rotation_is_the_inverse_of_to_rotation(layout: str, seed: int) -> None:
    expected = [matrix_of(q) for q in random_quaternions(seed)]
    rotations = to_rotation(random_quaternions(seed), "quaternion_wxyz")
    numbers = from_rotation(rotations, layout)  # type: ignore[arg-type]
    assert numbers.shape == (20, SIZES[layout])  # type: ignore[index]
    np.testing.assert_allclose(to_rotation(numbers, layout).as_matrix(), expected, atol=1e-7)  # type: ignore[arg-type]


def test_rotation_6d_need_be_neither_orthogonal_nor_of_unit_length() -> None:
    rotation = to_rotation(np.array([[2.0, 0, 0, 1.0, 3.0, 0]]), "rotation_6d")
    np.testing.assert_allclose(rotation.as_matrix()[0], np.eye(3), atol=1e-12)


def test_of_two_quaternions_the_one_with_positive_w_is_returned() -> None:
    rotation = to_rotation(np.array([[-0.5, 0.5, 0.5, 0.5]]), "quaternion_wxyz")
    np.testing.assert_allclose(
        from_rotation(rotation, "quaternion_xyzw"), [[-0.5, -0.5, -0.5, 0.5]]
    )
