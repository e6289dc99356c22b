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
    file_size,
    join_columns,
    override_convention,
    source_info,
)
from plugins.datasets.lerobot.features import ACTION, STATE
from plugins.datasets.lerobot.frames import decode_video
from plugins.datasets.lerobot.layout import Place, read_layout, read_table
from plugins.datasets.lerobot.note import FILE, read_note

VISUAL = ("video", "image")  # kinds of features that are pictures


@dataclass(frozen=True)
class LeRobotConfig:
    """Which features are what, and what the actions mean; LeRobot records names, and not their
    meaning.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: feature}; all videos and images unless said, named by what follows
    "observation.images.".
    """
    action: str = ACTION
    """the feature that holds the actions."""
    proprio: tuple[str, ...] | None = None
    """features that are joined to the proprioception; "observation.state", if there is one, unless
    said.
    """
    instruction: str | None = None
    """told to the robot in every episode; each episode's own task unless said."""
    meaning: ConventionOverride | None = None
    """of the actions; what `joinery write` noted, or absolute joint positions with no gripper,
    unless said.
    """


class LeRobot:
    """Reads datasets of LeRobot 2.0, 2.1 and 3.0, with videos or images.

    What `joinery write` noted of a store comes back: ids, tasks, conventions, origin. Raises
    DataError, naming the file, for what is missing or damaged, ConfigError for features that are
    not there.
    """

    def __init__(self, config: LeRobotConfig, *, source: Path) -> None:
        self.config = config
        self.root = source
        self.layout = read_layout(source)
        self.note = read_note(source)
        self.keys = self._name_episodes()
        features = self.layout.features
        self.cameras = dict(config.cameras) or _all_cameras(features)
        self.proprio = (
            config.proprio
            if config.proprio is not None
            else tuple(k for k in (STATE,) if k in features)
        )
        wanted = {"pictures": self.cameras.values(), "numbers": [config.action, *self.proprio]}
        check_mapping(
            source / "meta" / "info.json",
            "feature",
            wanted,
            {k: _kind(x) for k, x in features.items()},
        )
        self.info = source_info(
            fps=self.layout.fps,
            cameras={name: _size(key, features[key]) for name, key in self.cameras.items()},
            action=override_convention(self._convention(), config.meaning),
            proprio=[name for key in self.proprio for name in _names(key, features[key])],
            origin=self.note.info.origin
            if self.note
            else f"LeRobot dataset of a {self.layout.robot}",
        )

    def _convention(self) -> ActionConvention:
        """What was noted of the actions, where they are those that it was noted of."""
        key = self.config.action
        if self.note and key == ACTION:
            return self.note.info.action
        return _as_recorded(key, self.layout.features, self.layout.fps)

    def _name_episodes(self) -> dict[str, str]:
        """{id: key of its place}: the ids of the note; episodes that LeRobot has added since are
        called by number.
        """
        noted, places = self.note.episodes if self.note else [], self.layout.places
        unreadable = any(isinstance(place, DataError) for place in places.values())
        ids = {key: key for key in sorted(places, key=lambda name: (len(name), name))}
        for number, episode in enumerate(noted):
            place = places.get(key := f"{number:06d}")
            if place is None and unreadable:
                continue
            if not isinstance(place, Place) or place.length != episode.frames:
                raise DataError(
                    f"{self.root / FILE}: is not about this dataset: its episode {number} has {episode.frames} frames, "
                    "in meta/episodes it has not; remove that file, then episodes are named by their numbers"
                )
            ids[key] = episode.id
        if len(set(ids.values())) < len(ids):
            raise DataError(f"{self.root / FILE}: gives two episodes one id; remove that file")
        return {name: key for key, name in ids.items()}

    def ids(self) -> Sequence[str]:
        """The episodes' numbers, or their ids in a store; a table of meta/ that cannot be read by
        its name.
        """
        return [*self.keys]

    def read(self, episode: str) -> Episode:
        """Read one episode; raises DataError that names file and episode."""
        key = self.keys[episode]
        place = self.layout.places[key]
        if isinstance(place, DataError):
            raise place
        number = int(key)
        rows = self._rows(number, place)
        text = self.config.instruction or self._task(episode, place, rows)
        return Episode(
            id=episode,
            task=self.note.episodes[number].task
            if self.note and number < len(self.note.episodes)
            else text,
            instruction=text,
            images={name: self._frames(name, place, rows) for name in self.cameras},
            actions=self._numbers(place, rows, [self.config.action]),
            proprio=self._numbers(place, rows, self.proprio),
        )

    def _rows(self, number: int, place: Place) -> list[dict[str, Any]]:
        pictures = [key for key in self.cameras.values() if key not in place.videos]
        columns = ["frame_index", "task_index", self.config.action, *self.proprio, *pictures]
        rows = sorted(
            read_table(place.table, columns, number), key=lambda row: row["frame_index"] or 0
        )
        if len(rows) != place.length or any(
            row["frame_index"] != number for number, row in enumerate(rows)
        ):
            raise DataError(
                f"{place.table}: episode {number} has {len(rows)} rows, meta/ promises frames 0 to {place.length - 1}"
            )
        return rows

    def _task(self, episode: str, place: Place, rows: Sequence[Mapping[str, Any]]) -> str:
        numbers = {row["task_index"] for row in rows}
        if len(numbers) != 1 or not numbers <= self.layout.tasks.keys():
            raise DataError(
                f"{place.table}: episode {episode} has the tasks {sorted(map(str, numbers))}: expected one that meta/ "
                "lists; say instruction = ..., or leave it out"
            )
        return self.layout.tasks[numbers.pop()]

    def _frames(self, camera: str, place: Place, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        key, shape = self.cameras[camera], self.info.cameras[camera]
        if key in place.videos:
            return decode_video(*place.videos[key], place.length, self.layout.fps, shape)
        encoded = [self._picture(row[key], place) for row in rows]
        return decode_images(encoded, shape.height, shape.width, f"{place.table}, {key}")

    def _picture(self, cell: Any, place: Place) -> bytes:
        """A picture's bytes, in the table or in a file beside it."""
        try:
            if cell["bytes"] is not None:
                return bytes(cell["bytes"])
            file: Path = self.root / cell["path"]
            file_size(file)
            return file.read_bytes()
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise DataError(
                f"{place.table}: a picture is neither in the table nor in a file ({one_line(error)})"
            ) from None

    def _numbers(
        self, place: Place, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
    ) -> np.ndarray:
        """Join the features of each row -> (n D) float32."""
        where = f"{place.table}: {', '.join(keys)}"
        try:
            columns = [np.array([row[key] for row in rows]) for key in keys]
        except ValueError as error:
            raise DataError(f"{where}: {error}; every row must hold as many numbers") from None
        return join_columns(columns, len(rows), where)


def _all_cameras(features: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    pictures = [key for key, feature in features.items() if feature["dtype"] in VISUAL]
    return {key.removeprefix("observation.").removeprefix("images."): key for key in pictures}


def _kind(feature: Mapping[str, Any]) -> ArrayKind:
    if feature["dtype"] in VISUAL:
        return "pictures"
    return "text" if feature["dtype"] == "string" else "numbers"


def _size(key: str, feature: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of a picture, whichever way round its shape is written."""
    shape, names = tuple(feature["shape"]), feature.get("names")
    if len(shape) != 3 or 3 not in (shape[0], shape[2]):
        raise DataError(
            f"feature '{key}' has the shape {shape}, and pictures have three channels; name other cameras"
        )
    named = isinstance(names, list) and names and names[0] in ("channel", "channels")
    channels_first = named if isinstance(names, list) else shape[0] == 3 and shape[2] != 3
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def _as_recorded(
    key: str, features: Mapping[str, Mapping[str, Any]], fps: float
) -> ActionConvention:
    names = _names(key, features[key])
    return ActionConvention(names, "absolute", "joint", "none", scale=(1.0,) * len(names), rate=fps)


def _names(key: str, feature: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a feature's numbers: recorded as a list, below a heading, or not at all."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    width = prod(feature["shape"])
    if isinstance(names, list) and len(names) == width:
        return tuple(map(str, names))
    return dimension_names([(key.rpartition(".")[2], width)])
