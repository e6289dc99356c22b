"""Episodes of a LeRobot dataset."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
from annotated_types import Gt

from core import ConfigError, DataError, did_you_mean, one_line
from core.episodes import Camera, Number
from core.formats import (
    Column,
    Description,
    Guess,
    MappedSource,
    Recording,
    SourceMapping,
    decode_depth,
    decode_images,
    distinct_names,
    file_size,
    path_below,
)
from plugins.datasets.lerobot.features import ACTION, STATE
from plugins.datasets.lerobot.layout import EpisodeLocation, read_layout
from plugins.datasets.lerobot.rows import TASK, RowReader
from plugins.datasets.lerobot.sidecar import FILE, read_sidecar
from plugins.datasets.lerobot.video import read_video

IMAGE_DTYPES = ("video", "image")
CHANNELS = (1, 3, 4)  # how many an image may have: grey or depth, colour, colour and alpha
GUESS = Guess("absolute", "joint", "LeRobot does not record what actions mean")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LeRobotConfig(SourceMapping):
    """Which features hold images, actions and proprioception, and what the actions mean.

    LeRobot records the name of each dimension of an action, but not its meaning.
    """

    tolerance: Annotated[float, Gt(0)] = 1e-4
    """how many seconds an image of a video may lie from the time of its row."""


class LeRobot(MappedSource):
    """Reads datasets of LeRobot 2.0, 2.1 and 3.0, with videos or images.

    If `joinery write` wrote the dataset, the episodes have the ids, tasks, conventions and origin
    of the store that it was written from.

    Raises DataError, naming the file, for missing or damaged data, and ConfigError for features
    that do not exist.
    """

    def __init__(self, config: LeRobotConfig, *, source: Path) -> None:
        super().__init__(LeRobotReader(source, config.tolerance), config)


class LeRobotReader:
    """The features of a LeRobot dataset, and the values that an episode's rows and videos hold."""

    def __init__(self, root: Path, tolerance: float) -> None:
        self.root, self.tolerance = root, tolerance
        self.layout = read_layout(root)
        self.sidecar = read_sidecar(root)
        self.rows = RowReader(root, self.layout)
        self.keys = self._keys_by_id()

    def describe(self, use: Callable[[Description], T]) -> T:
        """Describe the features that info.json lists."""
        features, sidecar = self.layout.features, self.sidecar
        columns = self.columns
        cameras = {
            key: _short_name(key) for key, column in columns.items() if column.kind == "pictures"
        }
        has_action, robot = ACTION in features, self.layout.robot
        return use(
            Description(
                where=str(self.root / "meta" / "info.json"),
                noun="feature",
                columns=columns,
                cameras={name: key for key, name in distinct_names(cameras).items()},
                action=(ACTION,),
                proprio=(STATE,) if STATE in features else (),
                guess=GUESS,
                origin=sidecar.info.origin if sidecar else f"LeRobot dataset of a {robot}",
                fps=self.layout.fps,
                convention=sidecar.info.action if sidecar and has_action else None,
                assumed=sidecar.info.assumed if sidecar else {},
                proprio_units=sidecar.info.proprio_units if sidecar else (),
            )
        )

    @cached_property
    def columns(self) -> dict[str, Column]:
        """{feature: column}; a feature of an odd shape can be listed, but not read."""
        columns = {key: _column(key, feature) for key, feature in self.layout.features.items()}
        if isinstance(self.layout.tasks, DataError):
            return columns
        for key, column in columns.items():
            # like task_index, GR00T's annotations are indices of meta/tasks
            is_annotation = key == TASK or key.startswith("annotation.")
            if is_annotation and column.kind == "numbers" and column.width == 1:
                columns[key] = replace(column, texts=self.layout.tasks)
        return columns

    def ids(self) -> Sequence[str]:
        """Return the ids that the episodes have in the sidecar, or their indices without a sidecar.

        A table of meta/episodes that cannot be read counts as one episode, whose id is the name of
        the file.
        """
        return [*self.keys]

    def facts(self, episode: str) -> Mapping[str, Any]:
        """Return what meta/episodes says about an episode, its length for example."""
        return self._location(episode).facts

    def members(self, mask: str) -> Collection[str]:
        """Return the episodes of a split that info.json lists, "train" for example."""
        splits = self.layout.splits
        if mask not in splits:
            raise ConfigError(
                f"mask: info.json lists no split '{mask}'{did_you_mean(mask, [*splits])}"
            )
        first, stop = splits[mask]
        numbers = {name: int(key) for name, key in self.keys.items() if key.isdecimal()}
        return [name for name, number in numbers.items() if first <= number < stop]

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        """Read some features of one episode; raises a DataError that names the file."""
        location, number = self._location(episode), int(self.keys[episode])
        in_table = [key for key in columns if key not in location.videos]
        rows = self.rows.read(number, location, in_table)
        where = f"{location.table}, episode {episode}"
        values: dict[str, Any] = {}
        for key in columns:
            column = self.columns[key]
            if key in location.videos:
                path, begin = location.videos[key]
                camera = Camera(column.shape[0], column.shape[1])
                values[key] = read_video(path, begin + rows.times, camera, self.tolerance)
            elif column.kind in ("pictures", "depth"):
                encoded = [self._image_bytes(cell, where) for cell in rows.columns[key]]
                decode = decode_images if column.kind == "pictures" else decode_depth
                height, width = column.shape[:2]
                values[key] = decode(encoded, height, width, f"{where}, {key}")
            else:
                values[key] = _array(rows.columns[key], f"{where}, {key}", column)
        task = None
        if self.sidecar and number < len(self.sidecar.episodes):
            task = self.sidecar.episodes[number].task
        words = self._instruction(rows.tasks, where)
        return Recording(where, len(rows.times), values, words, task)

    def _location(self, episode: str) -> EpisodeLocation:
        location = self.layout.locations[self.keys[episode]]
        if isinstance(location, DataError):
            raise location
        return location

    def _instruction(self, tasks: Sequence[Any], where: str) -> str | DataError | None:
        """Return the one task of an episode's rows; None if the rows name none that meta/ lists.

        If they name several, return the error.
        """
        if isinstance(self.layout.tasks, DataError):
            return self.layout.tasks
        known = {number for number in np.ravel(tasks).tolist() if number in self.layout.tasks}
        if len(known) > 1:
            return DataError(
                f"{where}: has the tasks {sorted(known)}: expected one; say instruction = ..., or "
                "leave the episode out"
            )
        return self.layout.tasks[known.pop()] if known else None

    def _image_bytes(self, cell: Any, where: str) -> bytes:
        """Return an encoded image; the table's cell holds either the image or its file's name."""
        try:
            if cell["bytes"] is not None:
                return bytes(cell["bytes"])
            file = path_below(self.root, cell["path"])
            file_size(file)
            return file.read_bytes()
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise DataError(
                f"{where}: a picture is neither in the table nor in a file ({one_line(error)}); "
                "copy the dataset again"
            ) from None

    def _keys_by_id(self) -> dict[str, str]:
        """Return {episode's id: key of its location}, in the order of the episodes' indices.

        The ids are taken from the sidecar, if there is one. An episode that the sidecar does not
        list, because LeRobot added it later, has its index as id. Raises DataError if the sidecar
        belongs to another dataset.
        """
        locations = self.layout.locations
        has_errors = any(isinstance(location, DataError) for location in locations.values())
        ids = {key: key for key in sorted(locations, key=lambda name: (len(name), name))}
        for number, entry in enumerate(self.sidecar.episodes if self.sidecar else []):
            key = f"{number:06d}"
            location = locations.get(key)
            if location is None and has_errors:  # the damaged table may list it
                continue
            if not isinstance(location, EpisodeLocation) or location.length != entry.frames:
                raise DataError(
                    f"{self.root / FILE}: is not about this dataset: its episode {number} has "
                    f"{entry.frames} frames, in meta/episodes it has not; remove that file, "
                    "then episodes are named by their numbers"
                )
            ids[key] = entry.id
        if len(set(ids.values())) < len(ids):
            raise DataError(f"{self.root / FILE}: gives two episodes one id; remove that file")
        return {name: key for key, name in ids.items()}


def _short_name(key: str) -> str:
    return key.removeprefix("observation.").removeprefix("images.")


def _column(key: str, feature: Mapping[str, Any]) -> Column:
    """Describe a feature by its entry in info.json."""
    given = feature.get("shape") or (1,)
    shape = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not all(isinstance(length, int) and length > 0 for length in shape):
        return Column("text", (), "string")  # cannot be read, unless nobody asks for it
    if feature["dtype"] in IMAGE_DTYPES:
        return _image_column(feature, shape)
    if feature["dtype"] == "string":
        return Column("text", (), "string")
    names = feature.get("names")
    if isinstance(names, dict):  # {"motors": [...]} or {"axes": [...]}
        names = next(iter(names.values()), None)
    own = tuple(map(str, names)) if isinstance(names, list) and len(names) == prod(shape) else ()
    short = key.rpartition(".")[2]
    # LeRobot's single numbers have the shape (1), and their columns hold plain numbers
    return Column("numbers", shape, feature["dtype"], own, short)


def _image_column(feature: Mapping[str, Any], shape: tuple[int, ...]) -> Column:
    """Describe images, whose shape is (Y X C) or (C Y X).

    The names of the axes count only if the shape leaves it open, since LeRobot itself ignores them,
    and some datasets have them in the wrong order.
    """
    if len(shape) == 3:
        names = feature.get("names")
        says_first = isinstance(names, list) and names[:1] in (["channel"], ["channels"])
        if shape[0] in CHANNELS and (shape[2] not in CHANNELS or says_first):
            shape = (*shape[1:], shape[0])
    if len(shape) == 3 and shape[2] in (3, 4):  # an alpha channel is dropped
        return Column("pictures", (*shape[:2], 3), "uint8")
    if len(shape) == 2:
        shape = (*shape, 1)
    return Column("depth", shape, "uint16")


def _array(cells: Sequence[Any], where: str, column: Column) -> Any:
    """Return a feature's values: (n ...) numbers, or a list of texts."""
    if column.kind == "text":
        return ["" if cell is None else str(cell) for cell in cells]
    try:
        array = np.array(cells)
    except ValueError as error:
        raise DataError(f"{where}: {error}; every row must hold as many numbers") from None
    if array.dtype.kind not in "uifb":
        number = next((i for i, cell in enumerate(cells) if cell is None), None)
        found = f"{array.dtype} {array.shape}" if number is None else f"row {number} has no value"
        raise DataError(
            f"{where}: {found}, expected numbers; name another feature, or leave the episode out"
        )
    if column.width and array.size == len(cells) * column.width:
        array = array.reshape(len(cells), *column.shape)
    return array.astype(column.dtype) if column.dtype in get_args(Number) else array
