"""From one action convention to another: exact where that can be, refused with the reason where it
cannot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from core.episodes.episode import ActionConvention, Gripper
from core.episodes.rotations import SIZES, to_rotation, from_rotation


@dataclass(frozen=True)
class Conversion:
    """Turns actions of `source` into actions of `target`, dimension by dimension of the same name.

    period: frames of the source for each one of the target, 1 where both are as fast.
    turning: the target's dimensions that turn, by name; unless said those that `rotation_columns`
    finds.
    """

    source: ActionConvention
    target: ActionConvention
    period: int = 1
    turning: tuple[str, ...] | None = None

    @cached_property
    def present(self) -> np.ndarray:
        """Which of the target's dimensions the source has, (A) bool."""
        has = np.array([name in self.source.names for name in self.target.names])
        has[self._rotation_columns] = True
        return has

    @cached_property
    def is_identity(self) -> bool:
        """Whether actions are the same numbers in both."""
        meaning = replace(self.source, rate=self.target.rate)
        return self.period == 1 and meaning == self.target

    @cached_property
    def columns(self) -> list[int] | None:
        """Where the source's dimensions stand in the target, None where numbers change on the way."""
        if self.period > 1 or self._turns or not set(self.source.names) <= set(self.target.names):
            return None
        found = [self.target.names.index(name) for name in self.source.names]
        for d, column in enumerate(found):
            theirs, ours = gripper_of(self.source, d), gripper_of(self.target, column)
            same = theirs == ours or (theirs and ours and replace(theirs, dimension=column) == ours)
            if not same or self.source.scale[d] != self.target.scale[column]:
                return None
        return found

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """(n period A_source) float32 -> (n A) float32; zero where the source has no such
        dimension.
        """
        if self.is_identity:
            return actions[:, 0]
        result = np.zeros((len(actions), self.target.dim))
        whole = self.source.mode == "delta"
        for column, name in enumerate(self.target.names):
            if name in self.source.names:
                d = self.source.names.index(name)
                result[:, column] = self._convert(
                    actions[..., d].astype(np.float64), d, column, whole
                )
        if self._turns:
            result[:, self._rotation_columns] = self._turn(actions.astype(np.float64), whole)
        return result.astype(np.float32)

    def _convert(self, values: np.ndarray, d: int, column: int, whole: bool) -> np.ndarray:
        """One dimension (n period) -> (n): steps add up; of positions, and of a gripper's, the last
        one counts.
        """
        theirs, ours = gripper_of(self.source, d), gripper_of(self.target, column)
        if theirs is not None and ours is not None:
            share = (values[:, -1] - theirs.closed) / (theirs.open - theirs.closed)
            return share * (ours.open - ours.closed) + ours.closed
        theirs_scale, ours_scale = self.source.scale[d], self.target.scale[column]
        factor = 1.0 if theirs_scale == ours_scale else theirs_scale / ours_scale
        return factor * (values.sum(axis=1) if whole else values[:, -1])

    def _turn(self, actions: np.ndarray, whole: bool) -> np.ndarray:
        """The rotation, (n period A_source) -> (n R): steps follow each other, about axes that
        stay.
        """
        columns = rotation_columns(self.source)
        angles = actions[..., columns] * np.array(self.source.scale)[columns]
        turns = [to_rotation(angles[:, step], self.source.rotation) for step in range(self.period)]
        total = turns[0] if whole else turns[-1]
        for turn in turns[1:] if whole else []:
            total = turn * total
        numbers = from_rotation(total, self.target.rotation)
        turned: np.ndarray = numbers / np.array(self.target.scale)[self._rotation_columns]
        return turned

    @property
    def _turns(self) -> bool:
        """Whether the rotation is more than numbers that are copied or scaled."""
        if "none" in (self.source.rotation, self.target.rotation):
            return False
        steps = self.period > 1 and self.source.mode == "delta"
        return self.source.rotation != self.target.rotation or steps

    @property
    def _rotation_columns(self) -> list[int]:
        return _turning_columns(self.target, self.turning) if self._turns else []


def incompatibilities(
    source: ActionConvention,
    target: ActionConvention,
    ratio: float,
    turning: tuple[str, ...] | None = None,
) -> Iterator[str]:
    """Why actions of `source` cannot become actions of `target`, each a line that says what could
    be done.

    ratio: frames per second of the source's data over the target's. turning: as in Conversion.
    """
    if source.mode != target.mode:
        yield (
            f"mode: {source.mode} here, {target.mode} there; one becomes the other only with the pose that the robot "
            "had at every frame, so import the same kind from both"
        )
    if source.frame != target.frame:
        yield f"frame: {source.frame} here, {target.frame} there; only the robot's pose leads from one to the other"
    yield from _obstacles_of_time(source, target, ratio)
    yield from _obstacles_of_rotation(source, target, ratio, _turning_columns(target, turning))
    for name in source.names:
        if name in target.names:
            yield from _obstacles_of_dimension(name, source, target)


def _obstacles_of_time(
    source: ActionConvention, target: ActionConvention, ratio: float
) -> Iterator[str]:
    if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6:
        yield (
            f"rate: {ratio:g} frames here for one there; only every second, third ... frame can be left out: "
            "name the slowest store first, and import the others at a multiple of its rate"
        )
    elif abs(source.rate - target.rate * round(ratio)) > 1e-6 * source.rate:
        yield f"rate: {source.rate:g} Hz here, {target.rate:g} there, at {ratio:g} frames here for one there"
    if round(ratio) > 1 and (source.mode, source.frame) == ("delta", "tool"):
        yield "rate: steps in the tool's frame do not add up, since it turns between them; import it at the slower rate"


def _obstacles_of_rotation(
    source: ActionConvention, target: ActionConvention, ratio: float, turning: list[int]
) -> Iterator[str]:
    if "none" in (source.rotation, target.rotation) or (
        source.rotation == target.rotation and round(ratio) <= 1
    ):
        return
    if source.mode == "delta" and "euler_xyz" in (source.rotation, target.rotation):
        yield (
            f"rotation: {source.rotation} here, {target.rotation} there, {ratio:g} frames here for one there; steps in "
            "Euler angles may be turns or differences of angles, and which of them is not recorded"
        )
    if any(target.scale[column] == 0 for column in turning):
        yield "scale: a rotation is worth nothing there; import it with the scale that it has"
    for convention, columns in ((source, rotation_columns(source)), (target, turning)):
        if not columns:
            yield (
                f"rotation: {convention.rotation} takes {SIZES[convention.rotation]} dimensions, and which of "
                f"{', '.join(convention.names)} they are is not clear: three that move must come before them"
            )


def _obstacles_of_dimension(
    name: str, source: ActionConvention, target: ActionConvention
) -> Iterator[str]:
    d, column = source.names.index(name), target.names.index(name)
    theirs, ours = gripper_of(source, d), gripper_of(target, column)
    if (theirs is None) != (ours is None):
        yield f"grippers: '{name}' drives one in one of the two; rename it in `actions`, or import it as one"
    elif theirs and ours and (theirs.kind, ours.kind) == ("continuous", "binary"):
        yield (
            f"grippers: '{name}' is continuous here and has two states there, and where to cut is not recorded; "
            "name the store with the continuous one first"
        )
    if ours is None and target.scale[column] == 0 != source.scale[d]:
        yield f"scale: '{name}' is worth nothing there; import it with the scale that it has"


def gripper_of(convention: ActionConvention, dimension: int) -> Gripper | None:
    """The gripper that a dimension drives, if any."""
    return next((g for g in convention.grippers if g.dimension == dimension), None)


def rotation_columns(convention: ActionConvention) -> list[int]:
    """Dimensions that turn: what follows the first three that drive no gripper; empty where that is
    not clear.
    """
    driving = {g.dimension for g in convention.grippers}
    arm = [d for d in range(convention.dim) if d not in driving]
    size = SIZES[convention.rotation]
    if len(arm) not in (size, size + 3):
        return []
    return arm[len(arm) - size :] if size else []


def rotation_names(conventions: Sequence[ActionConvention]) -> tuple[str, ...]:
    """The dimensions of united conventions that turn: those of the first that has a rotation."""
    first = next((convention for convention in conventions if convention.rotation != "none"), None)
    return () if first is None else tuple(first.names[d] for d in rotation_columns(first))


def _turning_columns(target: ActionConvention, turning: tuple[str, ...] | None) -> list[int]:
    return (
        rotation_columns(target)
        if turning is None
        else [target.names.index(name) for name in turning]
    )


def merge_conventions(conventions: Sequence[ActionConvention]) -> ActionConvention:
    """One convention with the dimensions of all: the first one's, and then what the others have
    beside.

    A rotation in another layout than the first is no dimension beside it: it is converted.
    """
    united = conventions[0]
    for other in conventions[1:]:
        converted = (
            rotation_columns(other) if "none" not in (united.rotation, other.rotation) else []
        )
        same = converted if united.rotation != other.rotation else []
        new = [
            d for d, name in enumerate(other.names) if name not in united.names and d not in same
        ]
        grippers = [
            replace(gripper, dimension=united.dim + new.index(gripper.dimension))
            for gripper in other.grippers
            if gripper.dimension in new
        ]
        united = replace(
            united,
            names=(*united.names, *(other.names[d] for d in new)),
            scale=(*united.scale, *(other.scale[d] for d in new)),
            grippers=(*united.grippers, *grippers),
            rotation=other.rotation if united.rotation == "none" else united.rotation,
        )
    return united
