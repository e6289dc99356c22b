"""Layouts of rotations, and the way from one to another: exact, by way of the rotation itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from core.episodes.episode import Rotation

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation as Turn

SIZES: dict[Rotation, int] = {
    "none": 0,
    "euler_xyz": 3,
    "axis_angle": 3,
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    "rotation_6d": 6,
}


def to_rotation(numbers: np.ndarray, layout: Rotation) -> Turn:
    """Rotations of numbers (n R), radians where they are angles; raises ValueError for a quaternion
    of length zero.

    euler_xyz turns about the fixed axes x, y, z, in that order. rotation_6d holds the first two
    rows of the matrix, as PyTorch3D lays out what Zhou et al. (2019) propose; they need be neither
    orthogonal nor of unit length.
    """
    from scipy.spatial.transform import Rotation as Turn  # 0.2 s that most commands need not spend

    readers: dict[str, Callable[[], Turn]] = {
        "euler_xyz": lambda: Turn.from_euler("xyz", numbers),
        "axis_angle": lambda: Turn.from_rotvec(numbers),
        "quaternion_xyzw": lambda: Turn.from_quat(numbers),
        "quaternion_wxyz": lambda: Turn.from_quat(np.roll(numbers, -1, axis=-1)),
        "rotation_6d": lambda: Turn.from_matrix(_complete(numbers)),
    }
    return readers[layout]()


def from_rotation(turns: Turn, layout: Rotation) -> np.ndarray:
    """Inverse of to_rotation -> (n R) float64; of a quaternion's two signs the one with w >= 0."""
    writers: dict[str, Callable[[], np.ndarray]] = {
        "euler_xyz": lambda: turns.as_euler("xyz"),
        "axis_angle": lambda: turns.as_rotvec(),
        "quaternion_xyzw": lambda: turns.as_quat(canonical=True),
        "quaternion_wxyz": lambda: np.roll(turns.as_quat(canonical=True), 1, axis=-1),
        "rotation_6d": lambda: turns.as_matrix()[:, :2].reshape(-1, 6),
    }
    return writers[layout]()


def _complete(six: np.ndarray) -> np.ndarray:
    """Two rows (n 6) -> the matrix (n 3 3) that they span: the Gram-Schmidt process."""
    first = six[:, :3] / np.linalg.norm(six[:, :3], axis=-1, keepdims=True)
    second = six[:, 3:] - (first * six[:, 3:]).sum(-1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)
