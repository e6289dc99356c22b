"""Episodes of a dataset in RLDS, as tensorflow-datasets writes it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from core import ConfigError, DataError
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
    encoded_size,
    first_readable,
)
from plugins.datasets.rlds.features import EPISODE, STEPS, read_features
from plugins.datasets.rlds.records import Values, read_example, record_offsets

# the usual names of two features, the proprioception and the instruction; for each, the first
# existing name is used
STATES = ("observation/state", "observation/proprio")
INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "natural_language_instruction",
)
GUESS = Guess("delta", "base", "RLDS does not record what actions mean")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RldsConfig(SourceMapping):
    """Which features of a step hold images, actions, proprioception and instruction.

    A feature is given by its path in the step, for example "observation/image". The format records
    no frame rate, so `fps` must be given.
    """

    split: str = "train"
    """the split to read."""


class Rlds(MappedSource):
    """Reads the TFRecord files of a split, in which each record is an episode.

    Raises DataError, naming file and record, for missing or damaged data, and ConfigError for
    features that do not exist.
    """

    def __init__(self, config: RldsConfig, *, source: Path) -> None:
        super().__init__(RldsReader(source, config.split), config)

    @property
    def locations(self) -> Mapping[str, tuple[Path, int]]:
        """{episode: (file, byte offset)}."""
        assert isinstance(self.reader, RldsReader)
        return self.reader.locations


class RldsReader:
    """The features of a dataset's steps, and the records of a split."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        declared = _with_short_names(read_features(folder))
        files = sorted(folder.glob(f"*-{split}.tfrecord-*"))
        if not files:
            raise DataError(f"{folder}: holds no *-{split}.tfrecord-* files; say split = ...")
        self.locations: dict[str, tuple[Path, int]] = {}  # {episode: (file, byte offset)}
        for file in files:
            shard = file.name.rpartition(".tfrecord-")[2]
            for number, offset in enumerate(record_offsets(file)):
                self.locations[f"{shard}/{number:06d}"] = (file, offset)
        self.columns: dict[str, Column] = {}
        self.notes: tuple[str, ...] = ()
        for key, column in declared.items():
            try:
                self.columns[key] = self._sized(key, column)
            except DataError as error:
                self.notes += (f"left out: {key}, whose size is not declared ({error})",)

    def describe(self, use: Callable[[Description], T]) -> T:
        """Describe the features that features.json declares."""
        columns = self.columns
        short = {key: c.short_name for key, c in columns.items() if c.kind == "pictures"}
        words = _first(INSTRUCTIONS, columns)
        return use(
            Description(
                where=str(self.folder / "features.json"),
                noun="feature",
                columns=columns,
                cameras={name: key for key, name in distinct_names(short).items()},
                action=("action",),
                proprio=_first(STATES, columns),
                guess=GUESS,
                origin=f"RLDS dataset {self.folder.parent.name} {self.folder.name}",
                instruction_column=words[0] if words else None,
                has_instruction=bool(words),
                notes=self.notes,
            )
        )

    def _sized(self, key: str, column: Column) -> Column:
        """Describe images whose size features.json leaves open (-1) by the first of them."""
        if column.kind != "pictures" or min(column.shape) > 0:
            return column

        def first_size(place: tuple[Path, int]) -> tuple[int, int]:
            images = read_example(*place).get(f"{STEPS}/{key}", ())
            where = f"{place[0]}, the record at byte {place[1]:,}: {key}"
            if not images or not isinstance(images[0], bytes):
                raise DataError(f"{where} holds no images")
            return encoded_size(images[0], where)

        return replace(column, shape=(*first_readable(self.locations.values(), first_size), 3))

    def ids(self) -> Sequence[str]:
        """Return the episodes' ids "<shard>/<index of the record>".

        A shard's ids end at a record with a damaged header: later records cannot be found.
        """
        return [*self.locations]

    def facts(self, episode: str) -> Mapping[str, Any]:
        """Return the single values of the episode's metadata: {name: number or text}."""
        values = read_example(*self.locations[episode])
        return {
            name.removeprefix(f"{EPISODE}/"): _plain(value[0])
            for name, value in values.items()
            if name.startswith(f"{EPISODE}/") and len(value) == 1
        }

    def members(self, mask: str) -> Collection[str]:
        """Raise ConfigError: RLDS has splits, which `split` names."""
        raise ConfigError(f"mask: RLDS has splits; say split = {mask}")

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        """Read one record; raises a DataError that names the file."""
        file, offset = self.locations[episode]
        values = read_example(file, offset)
        where = f"{file}, episode {episode}"
        arrays: dict[str, Any] = {}
        for key in columns:
            column, content = self.columns[key], values.get(f"{STEPS}/{key}", ())
            if column.kind in ("pictures", "depth"):
                encoded = [bytes(value) for value in content]  # type: ignore[arg-type]
                decode = decode_images if column.kind == "pictures" else decode_depth
                height, width = column.shape[:2]
                arrays[key] = decode(encoded, height, width, f"{where}: {key}")
            elif column.kind == "text":
                arrays[key] = _texts(content, f"{where}: {key}")
            else:
                arrays[key] = _numbers(content, column, f"{where}: {key}")
        steps = max((len(x) for x in arrays.values() if isinstance(x, np.ndarray)), default=0)
        return Recording(where, steps, arrays)


def _with_short_names(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Give each feature the last word of its path as its short name."""
    return {
        key: replace(column, short_name=key.rpartition("/")[2]) for key, column in columns.items()
    }


def _numbers(content: Values | tuple[()], column: Column, where: str) -> np.ndarray:
    """Return one feature's values (n ...), with one row per step."""
    flat = np.array(content)
    if flat.dtype.kind not in "fiu" or not flat.size or flat.size % column.width:
        raise DataError(
            f"{where} holds {flat.size} values, expected a multiple of {column.width}; correct its "
            "shape in features.json, or name another feature"
        )
    # a record holds integers as int64 and floats as float32, whatever the feature's type
    values = flat.reshape(-1, *column.shape)
    cast = values.astype(column.dtype, copy=False)
    if cast.dtype.kind in "iu" and not np.array_equal(cast, values):
        raise DataError(
            f"{where} holds numbers that are no {column.dtype}; correct its dtype in features.json"
        )
    return cast


def _texts(content: Values | tuple[()], where: str) -> list[str]:
    try:
        return [value.decode().strip() for value in content]  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):
        raise DataError(
            f"{where} holds no text; name another feature, or say instruction = ..."
        ) from None


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _first(names: Sequence[str], columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Return the first name that is a feature, as a tuple of one name; () if there is none."""
    return next(((name,) for name in names if name in columns), ())
