"""Episodes of a LeRobot dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from core import DataError, one_line
from core.episodes import ActionConvention, Episode
from core.formats import (
    ArrayKind,
    ConventionOverride,
    check_mapping,
    decode_images,
    dimension_names,
    distinct_names,
    file_size,
    join_columns,
    override_convention,
    source_info,
)
from plugins.datasets.lerobot.features import ACTION, STATE
from plugins.datasets.lerobot.layout import EpisodeLocation, read_layout, read_table
from plugins.datasets.lerobot.sidecar import FILE, read_sidecar
from plugins.datasets.lerobot.video import decode_video

IMAGE_DTYPES = ("video", "image")


@dataclass(frozen=True)
class LeRobotConfig:
    """Which features hold images, actions and proprioception, and what the actions mean.

    LeRobot records the name of each dimension of an action, but not its meaning.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: feature}; default: every video and image, named without "observation.images."."""
    action: str = ACTION
    """the feature that holds the actions."""
    proprio: tuple[str, ...] | None = None
    """features that are joined to form the proprioception; default: "observation.state", if any."""
    instruction: str | None = None
    """the instruction of every episode; default: each episode's own task."""
    meaning: ConventionOverride | None = None
    """meaning of the actions; default: as `joinery write` recorded it, or absolute joint positions
    with no gripper.
    """


class LeRobot:
    """Reads datasets of LeRobot 2.0, 2.1 and 3.0, with videos or images.

    If `joinery write` wrote the dataset, the episodes have the ids, tasks, conventions and origin
    of the store that it was written from.

    Raises DataError, naming the file, for missing or damaged data, and ConfigError for features
    that do not exist.
    """

    def __init__(self, config: LeRobotConfig, *, source: Path) -> None:
        self.config = config
        self.root = source
        self.layout = read_layout(source)
        self.sidecar = read_sidecar(source)
        self.keys = self._keys_by_id()
        features = self.layout.features
        self.cameras = dict(config.cameras) or _all_cameras(features)
        default_proprio = (STATE,) if STATE in features else ()
        self.proprio = config.proprio if config.proprio is not None else default_proprio
        check_mapping(
            source / "meta" / "info.json",
            "feature",
            {"pictures": self.cameras.values(), "numbers": [config.action, *self.proprio]},
            {key: _array_kind(feature) for key, feature in features.items()},
        )
        self.info = source_info(
            fps=self.layout.fps,
            cameras={name: _image_size(key, features[key]) for name, key in self.cameras.items()},
            action=override_convention(self._convention(), config.meaning),
            proprio=[name for key in self.proprio for name in _number_names(key, features[key])],
            origin=self.sidecar.info.origin
            if self.sidecar
            else f"LeRobot dataset of a {self.layout.robot}",
        )

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

    def _convention(self) -> ActionConvention:
        """Return the convention of the actions.

        It is the sidecar's if there is a sidecar and the feature is "action"; in all other cases,
        the actions are taken for absolute joint positions.
        """
        key = self.config.action
        if self.sidecar and key == ACTION:
            return self.sidecar.info.action
        names = _number_names(key, self.layout.features[key])
        scale = (1.0,) * len(names)
        return ActionConvention(
            names, "absolute", "joint", "none", scale=scale, rate=self.layout.fps
        )

    def ids(self) -> Sequence[str]:
        """Return the ids that the episodes have in the sidecar, or their indices without a sidecar.

        A table of meta/episodes that cannot be read counts as one episode, whose id is the name of
        the file.
        """
        return [*self.keys]

    def read(self, episode: str) -> Episode:
        """Read one episode; raises a DataError that names the file and the episode."""
        key = self.keys[episode]
        location = self.layout.locations[key]
        if isinstance(location, DataError):
            raise location
        number = int(key)
        rows = self._rows(number, location)
        instruction = self.config.instruction or self._instruction(episode, location, rows)
        task = instruction
        if self.sidecar and number < len(self.sidecar.episodes):
            task = self.sidecar.episodes[number].task
        return Episode(
            id=episode,
            task=task,
            instruction=instruction,
            images={name: self._images(name, location, rows) for name in self.cameras},
            actions=self._numbers(location, rows, [self.config.action]),
            proprio=self._numbers(location, rows, self.proprio),
        )

    def _rows(self, number: int, location: EpisodeLocation) -> list[dict[str, Any]]:
        """Return the rows of an episode's frames, in order; raises DataError if any is missing."""
        image_keys = [key for key in self.cameras.values() if key not in location.videos]
        columns = ["frame_index", "task_index", self.config.action, *self.proprio, *image_keys]
        rows = sorted(
            read_table(location.table, columns, number), key=lambda row: row["frame_index"] or 0
        )
        frame_numbers = [row["frame_index"] for row in rows]
        # `location.length` is a claim and may be huge: no list of that length is made
        if len(rows) != location.length or frame_numbers != [*range(len(rows))]:
            raise DataError(
                f"{location.table}: episode {number} has {len(rows)} rows, "
                f"meta/ promises frames 0 to {location.length - 1}"
            )
        return rows

    def _instruction(
        self, episode: str, location: EpisodeLocation, rows: Sequence[Mapping[str, Any]]
    ) -> str:
        """Return the task of an episode, which must be the same in all of its frames."""
        numbers = {row["task_index"] for row in rows}
        if len(numbers) != 1 or not numbers <= self.layout.tasks.keys():
            raise DataError(
                f"{location.table}: episode {episode} has the tasks {sorted(map(str, numbers))}: "
                "expected one that meta/ lists; say instruction = ..., or leave it out"
            )
        return self.layout.tasks[numbers.pop()]

    def _images(
        self, camera: str, location: EpisodeLocation, rows: Sequence[Mapping[str, Any]]
    ) -> np.ndarray:
        """Return a camera's images (n Y X 3) uint8, from a video or from the table."""
        key, size = self.cameras[camera], self.info.cameras[camera]
        if key in location.videos:
            path, begin = location.videos[key]
            return decode_video(path, begin, location.length, self.layout.fps, size)
        encoded = [self._image_bytes(row[key], location) for row in rows]
        return decode_images(encoded, size.height, size.width, f"{location.table}, {key}")

    def _image_bytes(self, cell: Any, location: EpisodeLocation) -> bytes:
        """Return an encoded image; the table's cell holds either the image or its file's name."""
        try:
            if cell["bytes"] is not None:
                return bytes(cell["bytes"])
            file: Path = self.root / cell["path"]
            file_size(file)
            return file.read_bytes()
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise DataError(
                f"{location.table}: a picture is neither in the table nor in a file "
                f"({one_line(error)})"
            ) from None

    def _numbers(
        self, location: EpisodeLocation, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
    ) -> np.ndarray:
        """Join the values of several features, row by row -> (n D) float32."""
        where = f"{location.table}: {', '.join(keys)}"
        try:
            columns = [np.array([row[key] for row in rows]) for key in keys]
        except ValueError as error:
            raise DataError(f"{where}: {error}; every row must hold as many numbers") from None
        return join_columns(columns, len(rows), where)


def _all_cameras(features: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return all videos and images, as {camera: feature}."""
    short_names = {
        key: key.removeprefix("observation.").removeprefix("images.")
        for key, feature in features.items()
        if feature["dtype"] in IMAGE_DTYPES
    }
    return {name: key for key, name in distinct_names(short_names, ".").items()}


def _array_kind(feature: Mapping[str, Any]) -> ArrayKind:
    if feature["dtype"] in IMAGE_DTYPES:
        return "pictures"
    return "text" if feature["dtype"] == "string" else "numbers"


def _image_size(key: str, feature: Mapping[str, Any]) -> tuple[int, int]:
    """Return the height and width of a feature's images; its shape is (Y X 3) or (3 Y X)."""
    shape, names = tuple(feature["shape"]), feature.get("names")
    if len(shape) != 3 or 3 not in (shape[0], shape[2]):
        raise DataError(
            f"feature '{key}' has the shape {shape}, and pictures have three channels; "
            "name other cameras"
        )
    if isinstance(names, list):
        channels_first = bool(names) and names[0] in ("channel", "channels")
    else:
        channels_first = shape[0] == 3 and shape[2] != 3
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def _number_names(key: str, feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a feature's dimensions; they are made up if the feature lists none."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    width = prod(feature["shape"])
    if isinstance(names, list) and len(names) == width:
        return tuple(map(str, names))
    return dimension_names([(key.rpartition(".")[2], width)])
