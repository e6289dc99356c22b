"""Episodes of a dataset in RLDS, as tensorflow-datasets writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Gt

from core import ConfigError, DataError
from core.episodes import ActionConvention, Episode
from core.formats import (
    ConventionOverride,
    check_mapping,
    decode_images,
    dimension_names,
    join_columns,
    override_convention,
    source_info,
)
from plugins.datasets.rlds.features import STEPS, Leaf, read_features
from plugins.datasets.rlds.records import Values, read_example, record_offsets

STATES = ("observation/state", "observation/proprio")
INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "natural_language_instruction",
)


@dataclass(frozen=True)
class RldsConfig:
    """Which features of a step are what, "observation/image" for example; the format records no
    rate.
    """

    fps: Annotated[float, Gt(0)]
    """frames per second."""
    split: str = "train"
    """the split to read."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: feature}; all colour images unless said, named by the last word."""
    action: tuple[str, ...] = ("action",)
    """features that are joined to the action, in this order."""
    proprio: tuple[str, ...] | None = None
    """features that are joined; the state, if there is one, unless said."""
    instruction: str | None = None
    """the feature that holds what the robot is told; the first of the usual names that is there
    unless said.
    """
    meaning: ConventionOverride | None = None
    """of the actions; moves in the robot's base frame, without rotation and gripper, unless said.
    """


class Rlds:
    """Reads the TFRecord files of a split, one record an episode.

    Raises DataError, naming file and record, for what is missing or damaged, ConfigError for
    features not there.
    """

    def __init__(self, config: RldsConfig, *, source: Path) -> None:
        features = read_features(source)
        files = sorted(source.glob(f"*-{config.split}.tfrecord-*"))
        if not files:
            raise DataError(
                f"{source}: holds no *-{config.split}.tfrecord-* files; say split = ..."
            )
        places = [
            (file, number, at) for file in files for number, at in enumerate(record_offsets(file))
        ]
        self.places = {
            f"{file.name.rpartition('.tfrecord-')[2]}/{n:06d}": (file, at) for file, n, at in places
        }
        self.cameras = dict(config.cameras) or _all_cameras(features)
        self.action = config.action
        self.proprio = config.proprio if config.proprio is not None else _first(STATES, features)
        told = (config.instruction,) if config.instruction else _first(INSTRUCTIONS, features)
        wanted = {
            "pictures": self.cameras.values(),
            "numbers": [*self.action, *self.proprio],
            "text": told,
        }
        check_mapping(
            source / "features.json",
            "feature",
            wanted,
            {name: x.kind for name, x in features.items()},
        )
        if not told:
            raise ConfigError(
                f"rlds: no feature is called {' or '.join(INSTRUCTIONS)}; say instruction = ..."
            )
        self.instruction, self.features = told[0], features
        names = dimension_names(
            [(name.rpartition("/")[2], features[name].width) for name in self.action]
        )
        found = ActionConvention(names, "delta", "base", "none", (1.0,) * len(names), config.fps)
        self.info = source_info(
            fps=config.fps,
            cameras={name: features[key].shape[:2] for name, key in self.cameras.items()},
            action=override_convention(found, config.meaning),
            proprio=dimension_names(
                [(name.rpartition("/")[2], features[name].width) for name in self.proprio]
            ),
            origin=f"RLDS dataset {source.parent.name} {source.name}",
        )

    def ids(self) -> Sequence[str]:
        """Name the episodes "<shard>/<record>"; a shard that is damaged ends with the record that
        cannot be read.
        """
        return [*self.places]

    def read(self, episode: str) -> Episode:
        """Read one record; raises DataError that names file and feature."""
        file, offset = self.places[episode]
        values = read_example(file, offset)
        where = f"{file}, episode {episode}"
        text = self._text(values, where)
        actions, proprio = (
            self._columns(values, names, where) for names in (self.action, self.proprio)
        )
        length = max(map(len, actions), default=0)
        return Episode(
            id=episode,
            task=text,
            instruction=text,
            images={name: self._pictures(values, key, where) for name, key in self.cameras.items()},
            actions=join_columns(actions, length, f"{where}: {', '.join(self.action)}"),
            proprio=join_columns(proprio, length, f"{where}: {', '.join(self.proprio)}"),
        )

    def _columns(
        self, values: Mapping[str, Values], names: Sequence[str], where: str
    ) -> list[np.ndarray]:
        """Each feature's numbers, a row for each step."""
        columns = []
        for name in names:
            flat = np.array(values.get(f"{STEPS}/{name}", ()))
            width = self.features[name].width
            if flat.dtype.kind not in "fiu" or not flat.size or flat.size % width:
                raise DataError(
                    f"{where}: {name} holds {flat.size} values, expected a multiple of {width}"
                )
            columns.append(flat.reshape(-1, width))
        return columns

    def _pictures(self, values: Mapping[str, Values], name: str, where: str) -> np.ndarray:
        """Decode a camera's images -> (n Y X 3) uint8."""
        encoded, (rows, columns) = values.get(f"{STEPS}/{name}", ()), self.features[name].shape[:2]
        return decode_images([bytes(data) for data in encoded], rows, columns, f"{where}: {name}")  # type: ignore[arg-type]

    def _text(self, values: Mapping[str, Values], where: str) -> str:
        """What the robot is told in the first step."""
        try:
            first = values[f"{STEPS}/{self.instruction}"][0]
            return first.decode().strip()  # type: ignore[union-attr]
        except (KeyError, IndexError, AttributeError, UnicodeDecodeError):
            raise DataError(f"{where}: {self.instruction} holds no text") from None


def _all_cameras(features: Mapping[str, Leaf]) -> dict[str, str]:
    """Colour images by the last word of their names, or by the whole where two end alike."""
    colour = [
        name
        for name, x in features.items()
        if x.kind == "pictures" and len(x.shape) == 3 and x.shape[2] == 3
    ]
    last = [name.rpartition("/")[2] for name in colour]
    return {
        w if last.count(w) == 1 else name.replace("/", "_"): name
        for w, name in zip(last, colour, strict=True)
    }


def _first(names: Sequence[str], features: Mapping[str, Leaf]) -> tuple[str, ...]:
    return next(((name,) for name in names if name in features), ())
