"""Episodes and what their numbers mean: typed metadata that is checked when it is created."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from math import isfinite, prod
from typing import Any, Literal, get_args

import numpy as np

from core.episodes.frames import Images
from core.errors import DataError, did_you_mean

Mode = Literal["absolute", "delta"]
"""Whether an action is a target position ("absolute") or a movement from where the robot is."""
Frame = Literal["world", "base", "tool", "joint"]
"""The coordinates in which an action is given."""
Rotation = Literal[
    "none", "euler_xyz", "axis_angle", "quaternion_xyzw", "quaternion_wxyz", "rotation_6d"
]
"""How the rotation dimensions of an action describe a rotation."""
Codec = Literal["jpeg", "zstd"]
Number = Literal[
    "bool", "uint8", "uint16", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]
FeatureMeaning = Literal["rgb", "depth", "points", "force", "reward", "text", "other"]
"""What the numbers of a feature represent."""

NAME = r"\w[\w.-]*"  # name of a camera or a feature, which becomes a folder of the store
LONGEST_NAME = 200  # bytes; file systems allow 255
MAX_FRAME_BYTES = 2**28  # of one frame of a camera or a feature: 9,000 x 9,000 pixels
RESERVED = ("action", "proprio")  # names that a feature cannot have
SPARSE = ("depth", "points")  # meanings in which NaN and infinity stand for "no reading"
# an evaluation that hides the images also hides features with these meanings
VISUAL = ("rgb", "depth", "points")


def check_name(name: str, what: str) -> None:
    """Raise ValueError unless a name can be that of a file or a folder, and lead to no other.

    what: what is called so, "camera" for example.
    """
    if not re.fullmatch(NAME, name):
        characters = "letters, digits, '_', '-' and '.'"
        raise ValueError(f"{what} {name[:80]!r}: a name is made of {characters}; rename it")
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(f"{what} '{name[:20]}...': longer than {LONGEST_NAME} bytes; rename it")


def number_repeated(names: Sequence[str]) -> tuple[str, ...]:
    """Make names unique: "gripper", "gripper" become "gripper_0", "gripper_1"; the others stay.

    Numbers are found by their names, so two numbers of one name would be taken for the same.
    """
    occurrences, taken = Counter(names), set(names)
    unique = []
    for name in names:
        if occurrences[name] > 1:
            numbered = (f"{name}_{number}" for number in count())
            name = next(candidate for candidate in numbered if candidate not in taken)
            taken.add(name)
        unique.append(name)
    return tuple(unique)


def _check_units(key: str, units: Sequence[str], names: Sequence[str]) -> None:
    if units and len(units) != len(names):
        raise ValueError(f"{key} has {len(units)} entries for {len(names)} numbers: {names}")


@dataclass(frozen=True)
class Gripper:
    """An action dimension that drives a gripper.

    dimension: index of the gripper's dimension in the action.
    kind: "binary" if the gripper has two states; "continuous" if the value is an opening width or a
        force.
    closed: the action's value that closes the gripper.
    open: the action's value that opens the gripper.
    """

    dimension: int
    kind: Literal["binary", "continuous"]
    closed: float
    open: float

    def __post_init__(self) -> None:
        if not isfinite(self.closed) or not isfinite(self.open) or self.closed == self.open:
            raise ValueError(
                f"closed = {self.closed} and open = {self.open} must be two different finite "
                "numbers"
            )


@dataclass(frozen=True)
class ActionConvention:
    """What the numbers of an action mean.

    names: one name per dimension, "x" or "gripper" for example. A name that occurs more than once
        is numbered: "gripper_0", "gripper_1".
    mode: "delta" if an action is a movement from where the robot is, "absolute" if it is a target.
    frame: the coordinates in which the action is given: "world", "base", "tool" or "joint".
    rotation: layout of the rotation dimensions; "none" if there are none.
    scale: for each dimension, how many of its units the value 1.0 stands for: 0.02 if the unit is
        "m" and 1.0 is two centimetres.
    rate: control rate in Hz.
    grippers: the dimensions that drive a gripper.
    units: for each dimension, its unit: "m", "rad", "N", "m/s", "px", or "1" for a plain number.
        "" if the unit is not known; () if none is. Positions are then taken for metres, and
        rotations and joints for radians.
    """

    names: tuple[str, ...]
    mode: Mode
    frame: Frame
    rotation: Rotation
    scale: tuple[float, ...]
    rate: float
    grippers: tuple[Gripper, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", number_repeated(self.names))
        _check_units("units", self.units, self.names)
        if len(self.scale) != len(self.names):
            raise ValueError(
                f"scale has {len(self.scale)} entries for the {len(self.names)} dimensions "
                f"{self.names}"
            )
        if any(not 0 <= gripper.dimension < len(self.names) for gripper in self.grippers):
            raise ValueError(
                f"a gripper's dimension lies outside the {len(self.names)} dimensions {self.names}"
            )
        if len({gripper.dimension for gripper in self.grippers}) < len(self.grippers):
            raise ValueError(f"two grippers drive the same dimension of {self.names}")
        if not all(map(isfinite, self.scale)) or not (isfinite(self.rate) and self.rate > 0):
            raise ValueError(
                f"scale {self.scale} must be finite, and rate {self.rate} finite and positive"
            )

    @property
    def dim(self) -> int:
        """Number of action dimensions (A)."""
        return len(self.names)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data; without `units` if none is known, as before there were units."""
        plain = asdict(self)
        if not self.units:
            del plain["units"]
        return plain

    def check(self, action: np.ndarray) -> None:
        """Raise DataError unless an action has shape (A) and is finite."""
        if np.shape(action) != (self.dim,):
            raise DataError(
                f"an action of shape {np.shape(action)}: expected ({self.dim},), "
                f"{', '.join(self.names)}"
            )
        if not np.isfinite(action).all():
            raise DataError(
                f"an action that is not finite: {np.array2string(np.asarray(action), precision=3)}"
            )


@dataclass(frozen=True)
class Camera:
    """A camera's frames: height and width in pixels, three channels (RGB), uint8."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a frame of {self.height} x {self.width} pixels is empty")
        if 3 * self.height * self.width > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {self.height} x {self.width} pixels is too large")


@dataclass(frozen=True)
class Feature:
    """A named observation at every frame, such as a force; it is stored without loss.

    If the recipe names a feature in `data.features`, the feature is copied from `Episode.features`
    or `Observation.features` to `Batch.features`, without normalisation. Heads read it
    in `Context.features`. A vision encoder also receives it, if the encoder's build has the
    argument `features`. No built-in part reads features. If built-in parts should read a number,
    add it to the proprioception instead, which is normalised.

    shape: the shape of one frame's observation; () is a single number.
    dtype: numpy's name for the type of the numbers.
    meaning: what the numbers represent:
        "rgb"     colour image (Y X 3), uint8, for images that need lossless storage
        "depth"   distance along the optical axis (Y X 1); NaN, infinity or 0 if not measured
        "points"  point cloud (N 3 or more), x y z first; NaN or infinity if not measured
        "force"   force (3), or force followed by torque (6)
        "reward"  the reward at this frame, usually ()
        "text"    UTF-8 padded with zero bytes (size), uint8: see `encode_text` and `decode_text`
        "other"   anything else
    unit: the unit of the numbers, "m", "mm" or "N" for example; "" if they have no unit.
    """

    shape: tuple[int, ...]
    dtype: Number
    meaning: FeatureMeaning
    unit: str = ""

    def __post_init__(self) -> None:
        # A plugin may pass a list where a tuple is expected.
        object.__setattr__(self, "shape", tuple(self.shape))
        for key, known in (("dtype", get_args(Number)), ("meaning", get_args(FeatureMeaning))):
            if (value := getattr(self, key)) not in known:
                raise ValueError(f"a feature's {key} is '{value}'{did_you_mean(str(value), known)}")
        if any(length < 1 for length in self.shape):
            raise ValueError(
                f"a feature of shape {self.shape} is empty; every length must be at least 1"
            )
        if self.frame_bytes > MAX_FRAME_BYTES:
            raise ValueError(f"a feature of shape {self.shape} is too large for one frame")
        if self.meaning == "text" and (self.dtype != "uint8" or len(self.shape) != 1):
            raise ValueError(
                f"text is uint8 (size), not {self.dtype} {self.shape}; see encode_text"
            )

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}, {self.meaning}{f' in {self.unit}' if self.unit else ''}"

    @property
    def frame_bytes(self) -> int:
        """Number of bytes that one frame of the feature takes in memory."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class StoreInfo:
    """What all episodes of a store, a source or an environment have in common.

    fps: frames per second.
    cameras: {name: camera}.
    action: the convention of the actions.
    proprio: names of the proprioceptive numbers, possibly none; a name that occurs more than once
        is numbered.
    origin: where the data comes from, and its licence.
    features: {name: feature}, further observations; no camera may have the same name.
    assumed: {"mode", "frame" or another property of the actions or images: why it is a guess}, for
        what the data's source does not record.
    proprio_units: the unit of each proprioceptive number, as in `ActionConvention.units`.
    """

    fps: float
    cameras: Mapping[str, Camera]
    action: ActionConvention
    proprio: tuple[str, ...] = ()
    origin: str = ""
    features: Mapping[str, Feature] = field(default_factory=dict)
    assumed: Mapping[str, str] = field(default_factory=dict)
    proprio_units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "proprio", number_repeated(self.proprio))
        _check_units("proprio_units", self.proprio_units, self.proprio)
        if not self.cameras:
            raise ValueError("no cameras; name at least one")
        if not (isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps {self.fps} must be finite and positive")
        for name in self.cameras:
            check_name(name, "camera")
        for name in self.features:
            check_name(name, "feature")
            if name in self.cameras or name in RESERVED:
                raise ValueError(f"feature '{name}': that name is taken; rename it")


@dataclass(frozen=True)
class Episode:
    """One episode of n frames.

    id: unique in the episode's source. A resumed import skips episodes whose ids are already in the
        store.
    task: the task's name.
    instruction: the command given to the robot, in natural language.
    images: {camera: (n, Y, X, 3) uint8}, as an array, or as `Frames` if they are long.
    actions: (n, A) float32, in the units of `StoreInfo.action`.
    proprio: (n, P) float32.
    features: {feature: (n, *shape)}, with the shape and dtype in `StoreInfo.features`.
    """

    id: str
    task: str
    instruction: str
    images: Mapping[str, Images]
    actions: np.ndarray
    proprio: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.actions)
