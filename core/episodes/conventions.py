"""Exact conversion of actions between conventions, or the reasons why this is impossible."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from core.episodes.episode import ActionConvention, Gripper
from core.episodes.rotations import SIZES, from_rotation, to_rotation
from core.episodes.units import different_units, units_by_name


@dataclass(frozen=True)
class Conversion:
    """Converts actions of `source` to actions of `target`; equal names mean the same dimension.

    frame_stride: number of source frames per target frame; 1 if both have the same rate.
    rotation_names: the target's rotation dimensions; default: the dimensions that
        `rotation_columns(target)` finds.
    """

    source: ActionConvention
    target: ActionConvention
    frame_stride: int = 1
    rotation_names: tuple[str, ...] | None = None

    @cached_property
    def has_dimension(self) -> np.ndarray:
        """For each dimension of the target, whether the source has it, (A) bool."""
        has = np.array([name in self.source.names for name in self.target.names])
        has[self._rotation_columns] = True
        return has

    @cached_property
    def is_identity(self) -> bool:
        """Whether actions stay as they are: the stride is 1, and only the rates may differ."""
        source = replace(self.source, rate=self.target.rate, units=())
        return self.frame_stride == 1 and source == replace(self.target, units=())

    @cached_property
    def columns(self) -> list[int] | None:
        """Each source dimension's index in the target; None if numbers are changed or dropped."""
        if self.frame_stride > 1 or self._converts_rotation:
            return None
        if not set(self.source.names) <= set(self.target.names):
            return None
        columns = [self.target.names.index(name) for name in self.source.names]
        for d, column in enumerate(columns):
            source_gripper = gripper_of(self.source, d)
            if source_gripper is not None:
                source_gripper = replace(source_gripper, dimension=column)
            if source_gripper != gripper_of(self.target, column):
                return None
            if self.source.scale[d] != self.target.scale[column]:
                return None
        return columns

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions (n frame_stride A_source) float32 -> (n A) float32.

        Dimensions that the source lacks are zero.
        """
        if self.is_identity:
            return actions[:, 0]
        result = np.zeros((len(actions), self.target.dim))
        for column, name in enumerate(self.target.names):
            if name in self.source.names:
                d = self.source.names.index(name)
                values = actions[..., d].astype(np.float64)
                result[:, column] = self._convert_dimension(values, d, column)
        if self._converts_rotation:
            rotation = self._convert_rotation(actions.astype(np.float64))
            result[:, self._rotation_columns] = rotation
        return result.astype(np.float32)

    def _convert_dimension(self, values: np.ndarray, d: int, column: int) -> np.ndarray:
        """Convert one dimension (n frame_stride) -> (n).

        Relative movements are summed over the frames. For absolute positions and grippers, the last
        frame's value is taken.
        """
        source_gripper = gripper_of(self.source, d)
        target_gripper = gripper_of(self.target, column)
        if source_gripper is not None and target_gripper is not None:
            source_range = source_gripper.open - source_gripper.closed
            opening = (values[:, -1] - source_gripper.closed) / source_range
            target_range = target_gripper.open - target_gripper.closed
            return opening * target_range + target_gripper.closed
        source_scale, target_scale = self.source.scale[d], self.target.scale[column]
        factor = 1.0 if source_scale == target_scale else source_scale / target_scale
        return factor * (values.sum(axis=1) if self.source.mode == "delta" else values[:, -1])

    def _convert_rotation(self, actions: np.ndarray) -> np.ndarray:
        """Convert the rotation in actions (n frame_stride A_source) -> (n R), R numbers each.

        Relative rotations are composed in the order of the frames, each about the fixed axes.
        For absolute rotations, the last frame's rotation is taken.
        """
        columns = rotation_columns(self.source)
        numbers = actions[..., columns] * np.array(self.source.scale)[columns]
        steps = [to_rotation(numbers[:, i], self.source.rotation) for i in range(self.frame_stride)]
        if self.source.mode == "absolute":
            total = steps[-1]
        else:
            total = steps[0]
            for step in steps[1:]:
                total = step * total
        radians = from_rotation(total, self.target.rotation)
        result: np.ndarray = radians / np.array(self.target.scale)[self._rotation_columns]
        return result

    @property
    def _converts_rotation(self) -> bool:
        """Whether converting the rotation takes more than copying or scaling its numbers."""
        if "none" in (self.source.rotation, self.target.rotation):
            return False
        composes = self.frame_stride > 1 and self.source.mode == "delta"
        return self.source.rotation != self.target.rotation or composes

    @property
    def _rotation_columns(self) -> list[int]:
        if not self._converts_rotation:
            return []
        return _named_rotation_columns(self.target, self.rotation_names)


def incompatibilities(
    source: ActionConvention,
    target: ActionConvention,
    ratio: float,
    rotation_names: tuple[str, ...] | None = None,
) -> Iterator[str]:
    """Yield each reason why actions of `source` cannot be converted to `target`, with a remedy.

    ratio: frames per second of the source's data, divided by those of the target's data.
    rotation_names: as in Conversion.
    """
    if source.mode != target.mode:
        yield (
            f"mode: {source.mode} here, {target.mode} there; converting them needs the robot's "
            "pose at every frame, so import the same mode from both"
        )
    if source.frame != target.frame:
        yield (
            f"frame: {source.frame} here, {target.frame} there; converting them needs the "
            "robot's pose at every frame, so import the same frame from both"
        )
    yield from _rate_incompatibilities(source, target, ratio)
    units = units_by_name(source.names, source.units), units_by_name(target.names, target.units)
    for name in different_units(*units):
        yield (
            f"units: '{name}' is in {units[0][name]} here, in {units[1][name]} there; correct "
            "meaning.units and meaning.scale with joinery edit, or rename it in `actions`"
        )
    columns = _named_rotation_columns(target, rotation_names)
    yield from _rotation_incompatibilities(source, target, ratio, columns)
    for name in source.names:
        if name in target.names:
            yield from _dimension_incompatibilities(name, source, target)


def _rate_incompatibilities(
    source: ActionConvention, target: ActionConvention, ratio: float
) -> Iterator[str]:
    if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6:
        yield (
            f"rate: {ratio:g} frames here for one there, which must be a whole number: name the "
            "slowest store first, and import the others at a multiple of its rate"
        )
    elif abs(source.rate - target.rate * round(ratio)) > 1e-6 * source.rate:
        yield (
            f"rate: {source.rate:g} Hz here and {target.rate:g} Hz there do not agree with "
            f"{ratio:g} frames here for one there; correct meaning.rate or fps with joinery edit"
        )
    if round(ratio) > 1 and (source.mode, source.frame) == ("delta", "tool"):
        yield (
            "rate: movements in the tool's frame do not add up, since the frame turns between "
            "them; import the data at the slower rate"
        )


def _rotation_incompatibilities(
    source: ActionConvention, target: ActionConvention, ratio: float, target_columns: list[int]
) -> Iterator[str]:
    if "none" in (source.rotation, target.rotation):
        return
    if source.rotation == target.rotation and round(ratio) <= 1:
        return
    if source.mode == "delta" and "euler_xyz" in (source.rotation, target.rotation):
        yield (
            f"rotation: {source.rotation} here, {target.rotation} there, {ratio:g} frames here for "
            "one there; a movement in Euler angles may be a turn or a difference of angles, and "
            "the data do not say which; import the same layout at the same rate from both"
        )
    if any(target.scale[column] == 0 for column in target_columns):
        yield "scale: a rotation has scale 0 there; import it with its real scale"
    for convention, columns in ((source, rotation_columns(source)), (target, target_columns)):
        if not columns:
            yield (
                f"rotation: {convention.rotation} takes {SIZES[convention.rotation]} dimensions, "
                f"and it is not clear which of {', '.join(convention.names)} these are: they must "
                "be all that drive no gripper, or follow the three of the position; declare the "
                "grippers with joinery edit, or select these dimensions when you import"
            )


def _dimension_incompatibilities(
    name: str, source: ActionConvention, target: ActionConvention
) -> Iterator[str]:
    d, column = source.names.index(name), target.names.index(name)
    source_gripper, target_gripper = gripper_of(source, d), gripper_of(target, column)
    if (source_gripper is None) != (target_gripper is None):
        yield (
            f"grippers: '{name}' drives a gripper on one side only; rename it in `actions`, or "
            "import it as a gripper"
        )
    elif (
        source_gripper
        and target_gripper
        and (source_gripper.kind, target_gripper.kind) == ("continuous", "binary")
    ):
        yield (
            f"grippers: '{name}' is continuous here and has two states there, and the data do not "
            "say which value divides them; name the store with the continuous gripper first"
        )
    if target_gripper is None and target.scale[column] == 0 != source.scale[d]:
        yield f"scale: '{name}' has scale 0 there; import it with its real scale"


def gripper_of(convention: ActionConvention, dimension: int) -> Gripper | None:
    """Return the gripper that a dimension drives, or None if it drives no gripper."""
    for gripper in convention.grippers:
        if gripper.dimension == dimension:
            return gripper
    return None


def rotation_columns(convention: ActionConvention) -> list[int]:
    """Return the rotation dimensions' indices, or an empty list if they cannot be identified.

    The dimensions that do not drive a gripper must be the rotation alone, or a position (three
    dimensions) followed by the rotation.
    """
    gripper_columns = {gripper.dimension for gripper in convention.grippers}
    arm_columns = [d for d in range(convention.dim) if d not in gripper_columns]
    size = SIZES[convention.rotation]
    if size == 0 or len(arm_columns) not in (size, size + 3):
        return []
    return arm_columns[-size:]


def rotation_names(conventions: Sequence[ActionConvention]) -> tuple[str, ...]:
    """Return the names of the rotation dimensions in `merge_conventions(conventions)`.

    They are the names that the first convention with a rotation gives to its rotation dimensions.
    """
    for convention in conventions:
        if convention.rotation != "none":
            return tuple(convention.names[d] for d in rotation_columns(convention))
    return ()


def _named_rotation_columns(target: ActionConvention, names: tuple[str, ...] | None) -> list[int]:
    if names is None:
        return rotation_columns(target)
    return [target.names.index(name) for name in names]


def merge_conventions(conventions: Sequence[ActionConvention]) -> ActionConvention:
    """Return one convention with all dimensions, beginning with those of the first convention.

    The result has the rotation layout of the first convention with a rotation. Conventions with
    another layout add no rotation dimensions, because their rotations are converted to this layout.
    """
    merged = conventions[0]
    for other in conventions[1:]:
        converted_columns: list[int] = []
        if "none" not in (merged.rotation, other.rotation) and merged.rotation != other.rotation:
            converted_columns = rotation_columns(other)
        new_columns = [
            d
            for d, name in enumerate(other.names)
            if name not in merged.names and d not in converted_columns
        ]
        new_grippers = [
            replace(gripper, dimension=merged.dim + new_columns.index(gripper.dimension))
            for gripper in other.grippers
            if gripper.dimension in new_columns
        ]
        units = (*_all_units(merged), *(_all_units(other)[d] for d in new_columns))
        merged = replace(
            merged,
            names=(*merged.names, *(other.names[d] for d in new_columns)),
            scale=(*merged.scale, *(other.scale[d] for d in new_columns)),
            grippers=(*merged.grippers, *new_grippers),
            rotation=other.rotation if merged.rotation == "none" else merged.rotation,
            units=units if any(units) else (),
        )
    return merged


def _all_units(convention: ActionConvention) -> tuple[str, ...]:
    return convention.units or ("",) * convention.dim
