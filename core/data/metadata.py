"""What a store says about itself: cameras, actions and their conventions, as typed metadata that is checked at load."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Rotation = Literal["none", "euler_xyz", "axis_angle", "quaternion_xyzw", "quaternion_wxyz", "rotation_6d"]
Codec = Literal["jpeg", "zstd"]


@dataclass(frozen=True)
class Gripper:
    """One gripper dimension of the action.

    dimension: its index in the action.
    kind: "binary" has two states; "continuous" is an opening or a force.
    closed: the action's value that closes it.
    open: the action's value that opens it.
    """

    dimension: int
    kind: Literal["binary", "continuous"]
    closed: float
    open: float


@dataclass(frozen=True)
class ActionConvention:
    """How the numbers of an action are meant.

    names: one a dimension, "x" or "gripper" for example.
    mode: "delta" moves relative to where the robot is, "absolute" says where to be.
    frame: in which coordinates: "world", "base", "tool" or "joint".
    rotation: layout of the rotation dimensions, "none" where there are none.
    scale: units per 1.0 of each dimension, in metres and radians (0.02 means that 1.0 is two centimetres).
    rate: control rate in Hz.
    grippers: the dimensions that drive a gripper.
    """

    names: tuple[str, ...]
    mode: Literal["absolute", "delta"]
    frame: Literal["world", "base", "tool", "joint"]
    rotation: Rotation
    scale: tuple[float, ...]
    rate: float
    grippers: tuple[Gripper, ...] = ()

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.names):
            raise ValueError(f"scale has {len(self.scale)} entries for the {len(self.names)} dimensions {self.names}")
        if any(not 0 <= gripper.dimension < len(self.names) for gripper in self.grippers):
            raise ValueError(f"a gripper's dimension lies outside the {len(self.names)} dimensions {self.names}")

    @property
    def dim(self) -> int:
        """Number of action dimensions (A)."""
        return len(self.names)


@dataclass(frozen=True)
class Camera:
    """A camera's frames: height and width in pixels, three channels (RGB), uint8."""

    height: int
    width: int


@dataclass(frozen=True)
class StoreInfo:
    """What holds for every episode of a store, a source or an environment.

    fps: frames per second.
    cameras: by name.
    action: the conventions of the actions.
    proprio: names of the proprioceptive numbers, possibly none.
    origin: where the data comes from, and its licence.
    """

    fps: float
    cameras: Mapping[str, Camera]
    action: ActionConvention
    proprio: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True)
class Episode:
    """One episode of n frames.

    id: unique in its source; a resumed import skips the ids it has.
    task: the task's name.
    instruction: what the robot is told.
    images: {camera: (n, Y, X, 3) uint8}.
    actions: (n, A) float32, in the units of `StoreInfo.action`.
    proprio: (n, P) float32.
    """

    id: str
    task: str
    instruction: str
    images: Mapping[str, np.ndarray]
    actions: np.ndarray
    proprio: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)
