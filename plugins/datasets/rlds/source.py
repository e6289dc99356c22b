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
    distinct_names,
    join_columns,
    override_convention,
    source_info,
)
from plugins.datasets.rlds.features import STEPS, StepFeature, read_features
from plugins.datasets.rlds.records import Values, read_example, record_offsets

# the usual names of two features, the proprioception and the instruction; for each, the first
# existing name is used
STATES = ("observation/state", "observation/proprio")
INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "natural_language_instruction",
)


@dataclass(frozen=True)
class RldsConfig:
    """Which features of a step hold images, actions, proprioception and instruction.

    A feature is given by its path in the step, for example "observation/image". The format records
    no frame rate, so `fps` must be given.
    """

    fps: Annotated[float, Gt(0)]
    """frames per second."""
    split: str = "train"
    """the split to read."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: feature}; default: every colour image, named by the last word of its feature."""
    action: tuple[str, ...] = ("action",)
    """features that are joined in this order to form the action."""
    proprio: tuple[str, ...] | None = None
    """features that are joined to form the proprioception; default: the state, if there is one."""
    instruction: str | None = None
    """the feature that holds the instruction; default: the first usual name that exists."""
    meaning: ConventionOverride | None = None
    """meaning of the actions; default: deltas in the robot's base frame, no rotation or gripper."""


class Rlds:
    """Reads the TFRecord files of a split, in which each record is an episode.

    Raises DataError, naming file and record, for missing or damaged data, and ConfigError for
    features that do not exist.
    """

    def __init__(self, config: RldsConfig, *, source: Path) -> None:
        features = read_features(source)
        files = sorted(source.glob(f"*-{config.split}.tfrecord-*"))
        if not files:
            raise DataError(
                f"{source}: holds no *-{config.split}.tfrecord-* files; say split = ..."
            )
        self.locations: dict[str, tuple[Path, int]] = {}  # {episode: (file, byte offset)}
        for file in files:
            shard = file.name.rpartition(".tfrecord-")[2]
            for number, offset in enumerate(record_offsets(file)):
                self.locations[f"{shard}/{number:06d}"] = (file, offset)
        self.features = features
        self.cameras = dict(config.cameras) or _colour_cameras(features)
        self.action = config.action
        self.proprio = config.proprio if config.proprio is not None else _first(STATES, features)
        instruction = (
            (config.instruction,) if config.instruction else _first(INSTRUCTIONS, features)
        )
        check_mapping(
            source / "features.json",
            "feature",
            {
                "pictures": self.cameras.values(),
                "numbers": [*self.action, *self.proprio],
                "text": instruction,
            },
            {name: feature.kind for name, feature in features.items()},
        )
        if not instruction:
            raise ConfigError(
                f"rlds: no feature is called {' or '.join(INSTRUCTIONS)}; say instruction = ..."
            )
        self.instruction = instruction[0]
        names = self._dimension_names(self.action)
        convention = ActionConvention(
            names, "delta", "base", "none", (1.0,) * len(names), config.fps
        )
        self.info = source_info(
            fps=config.fps,
            cameras={name: features[key].shape[:2] for name, key in self.cameras.items()},
            action=override_convention(convention, config.meaning),
            proprio=self._dimension_names(self.proprio),
            origin=f"RLDS dataset {source.parent.name} {source.name}",
        )

    def _dimension_names(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Name the dimensions of joined features, using the last words of the features' names."""
        names = _last_words(keys)
        return dimension_names([(names[key], self.features[key].width) for key in keys])

    def ids(self) -> Sequence[str]:
        """Return the episodes' ids "<shard>/<index of the record>".

        A shard's ids end at a record with a damaged header: later records cannot be found.
        """
        return [*self.locations]

    def read(self, episode: str) -> Episode:
        """Read one record; raises a DataError that names the file."""
        file, offset = self.locations[episode]
        values = read_example(file, offset)
        where = f"{file}, episode {episode}"
        instruction = self._instruction(values, where)
        actions = self._columns(values, self.action, where)
        proprio = self._columns(values, self.proprio, where)
        length = max(map(len, actions), default=0)
        images = {}
        for camera, key in self.cameras.items():
            values_of_feature = values.get(f"{STEPS}/{key}", ())
            encoded = [bytes(value) for value in values_of_feature]  # type: ignore[arg-type]
            rows, columns = self.features[key].shape[:2]
            images[camera] = decode_images(encoded, rows, columns, f"{where}: {key}")
        return Episode(
            id=episode,
            task=instruction,
            instruction=instruction,
            images=images,
            actions=join_columns(actions, length, f"{where}: {', '.join(self.action)}"),
            proprio=join_columns(proprio, length, f"{where}: {', '.join(self.proprio)}"),
        )

    def _columns(
        self, values: Mapping[str, Values], keys: Sequence[str], where: str
    ) -> list[np.ndarray]:
        """Return one array (n D) for each feature, with one row per step."""
        columns = []
        for key in keys:
            flat = np.array(values.get(f"{STEPS}/{key}", ()))
            width = self.features[key].width
            if flat.dtype.kind not in "fiu" or not flat.size or flat.size % width:
                raise DataError(
                    f"{where}: {key} holds {flat.size} values, expected a multiple of {width}"
                )
            columns.append(flat.reshape(-1, width))
        return columns

    def _instruction(self, values: Mapping[str, Values], where: str) -> str:
        """Return the instruction of an episode, which is the instruction of its first step."""
        try:
            first = values[f"{STEPS}/{self.instruction}"][0]
            return first.decode().strip()  # type: ignore[union-attr]
        except (KeyError, IndexError, AttributeError, UnicodeDecodeError):
            raise DataError(f"{where}: {self.instruction} holds no text") from None


def _colour_cameras(features: Mapping[str, StepFeature]) -> dict[str, str]:
    """Return all features that are colour images, as {camera: feature}."""
    keys = [
        key
        for key, feature in features.items()
        if feature.kind == "pictures" and len(feature.shape) == 3 and feature.shape[2] == 3
    ]
    return {name: key for key, name in _last_words(keys).items()}


def _last_words(keys: Sequence[str]) -> dict[str, str]:
    """Return {feature: last word of its name, or its whole name if another ends in that word}."""
    return distinct_names({key: key.rpartition("/")[2] for key in keys}, "/")


def _first(names: Sequence[str], features: Mapping[str, StepFeature]) -> tuple[str, ...]:
    """Return the first name that is a feature, as a tuple of one name; () if there is none."""
    return next(((name,) for name in names if name in features), ())
