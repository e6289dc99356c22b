"""Layouts of rotations, and exact conversion between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.episodes.episode import Rotation as Layout

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

# how many numbers a rotation has in each layout
SIZES: dict[Layout, int] = {
    "none": 0,
    "euler_xyz": 3,
    "axis_angle": 3,
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    "rotation_6d": 6,
}


def to_rotation(numbers: np.ndarray, layout: Layout) -> Rotation:
    """Make n rotations from numbers (n R); angles are in radians.

    euler_xyz turns about the fixed axes x, y, z, in that order. rotation_6d holds the first two
    rows of the rotation matrix, as in PyTorch3D, after Zhou et al. (2019): "On the Continuity of
    Rotation Representations in Neural Networks". The two rows are first made orthogonal and of
    unit length. Raises ValueError for a quaternion of length zero.
    """
    from scipy.spatial.transform import Rotation  # takes 0.2 s; few commands need it

    rotation: Rotation
    match layout:
        case "euler_xyz":
            rotation = Rotation.from_euler("xyz", numbers)
        case "axis_angle":
            rotation = Rotation.from_rotvec(numbers)
        case "quaternion_xyzw":
            rotation = Rotation.from_quat(numbers)
        case "quaternion_wxyz":
            rotation = Rotation.from_quat(np.roll(numbers, -1, axis=-1))
        case "rotation_6d":
            rotation = Rotation.from_matrix(_orthonormal_matrices(numbers))
        case _:
            raise KeyError(layout)
    return rotation


def from_rotation(rotation: Rotation, layout: Layout) -> np.ndarray:
    """Return n rotations as numbers (n R) float64, the inverse of `to_rotation`.

    Of the two quaternions of a rotation, the one with w >= 0 is returned.
    """
    numbers: np.ndarray
    match layout:
        case "euler_xyz":
            numbers = rotation.as_euler("xyz")
        case "axis_angle":
            numbers = rotation.as_rotvec()
        case "quaternion_xyzw":
            numbers = rotation.as_quat(canonical=True)
        case "quaternion_wxyz":
            numbers = np.roll(rotation.as_quat(canonical=True), 1, axis=-1)
        case "rotation_6d":
            numbers = rotation.as_matrix()[:, :2].reshape(-1, 6)
        case _:
            raise KeyError(layout)
    return numbers


def _orthonormal_matrices(rows: np.ndarray) -> np.ndarray:
    """Make rotation matrices (n 3 3) from their first two rows (n 6) by Gram-Schmidt."""
    first = rows[:, :3] / np.linalg.norm(rows[:, :3], axis=-1, keepdims=True)
    second = rows[:, 3:] - (first * rows[:, 3:]).sum(-1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)
