"""What the reader and the writer of another format must do.

Importing reads an EpisodeSource. Most readers are a `Reader`, which only says which columns an
episode has; `MappedSource` makes an EpisodeSource of it, with the same settings for every format.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from core.episodes.episode import ActionConvention, Episode, Frame, Mode, StoreInfo
from core.episodes.frames import Images
from core.errors import DataError
from core.formats.columns import Column

T = TypeVar("T")


class EpisodeSource(Protocol):
    """A dataset in another format, which is read episode by episode.

    Built once for each import, as `build(config, *, source: Path)`. Each process that reads gets a
    pickled copy of the source, and open files cannot be pickled. So a source holds only paths and
    positions in files, and opens the files in `read`.

    A source may also have `notes`, lines to show before the import: what is left out, for example;
    and `doubts(instructions)`, which returns lines to show after it, given the instructions of all
    episodes: settings that no episode fits, for example.
    """

    info: StoreInfo

    def ids(self) -> Sequence[str]:
        """Return the names of all episodes; every call returns the same names.

        A resumed import skips the episodes whose names its store already holds. If the episodes of
        a file cannot be listed, return one name for the whole file, and let `read` of that name
        raise the error. An import that skips damaged episodes then also skips this damaged file.
        """

    def read(self, episode: str) -> Episode:
        """Read one whole episode; raises a DataError that names the file and the episode."""


@dataclass(frozen=True)
class Guess:
    """How actions are understood where a dataset does not say what they mean.

    reason: why it has to be guessed, "LeRobot does not record it" for example.
    """

    mode: Mode
    frame: Frame
    reason: str


@dataclass(frozen=True)
class Description:
    """What a dataset says about all of its episodes.

    where: the file that describes them, for messages.
    noun: the format's word for a column.
    columns: {name: column}.
    cameras: {name of a camera: column}, used unless the user names others.
    action, proprio: columns that are joined, unless the user names others.
    guess: how actions are understood, except for those of `convention`.
    origin: where the data come from.
    instruction_column: the column with the words; None if they are in `Recording.instruction`.
    has_instruction: whether the dataset has words at all.
    fps: frames per second; None if the format does not record it.
    convention: meaning of the columns `action`; None if the dataset does not record it.
    assumed: {field of `convention`, or another property: why it is a guess}.
    proprio_names: names of the numbers in the columns `proprio`; None: as the columns name them.
    notes: lines to show before an import.
    proprio_units: units of the numbers in the columns `proprio`, as in StoreInfo.
    """

    where: str
    noun: str
    columns: Mapping[str, Column]
    cameras: Mapping[str, str]
    action: tuple[str, ...]
    proprio: tuple[str, ...]
    guess: Guess
    origin: str
    instruction_column: str | None = None
    has_instruction: bool = True
    fps: float | None = None
    convention: ActionConvention | None = None
    assumed: Mapping[str, str] = field(default_factory=dict)
    proprio_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    proprio_units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """One episode of n frames as its format holds it.

    where: file and episode, for messages.
    length: number of frames (n).
    columns: {name: values}. Numbers are an array (n ...); images an array or `Frames`, (n Y X 3) of
        any number type; a text is one string, or one for each frame.
    instruction: what the robot was told, if the dataset records it outside the columns; an error if
        it cannot be read, which matters only if the user gives no instruction.
    task: name of the task; None: the same as the instruction.
    """

    where: str
    length: int
    columns: Mapping[str, Images | Sequence[str] | str]
    instruction: str | DataError | None = None
    task: str | None = None


class Reader(Protocol):
    """A dataset in another format: its columns, its episodes, and what they hold.

    Each process that reads gets a pickled copy, as of an EpisodeSource.
    """

    def describe(self, use: Callable[[Description], T]) -> T:
        """Call `use` with a description of the dataset, and return its result.

        `use` raises ConfigError if the user's settings do not fit the description. A format that
        describes no dataset as a whole may then describe another of its files
        (`core.formats.first_readable`).
        """

    def ids(self) -> Sequence[str]:
        """Return the names of all episodes, as `EpisodeSource.ids` does."""

    def facts(self, episode: str) -> Mapping[str, Any]:
        """Return what the dataset says about a whole episode: {name: number or text}."""

    def members(self, mask: str) -> Collection[str]:
        """Return the episodes of a mask or split of the dataset; raises ConfigError if unknown."""

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        """Read some columns of one episode; raises a DataError that names file and episode."""


class EpisodeSink(Protocol):
    """A dataset in another format, which is written episode by episode.

    Built as `build(config, *, info: StoreInfo, out: Path)`. Nothing exists at `out` yet; the sink
    makes a file or a folder there. `out` is a temporary path: a finished dataset is moved to the
    path that the user chose, and an unfinished dataset is removed.

    A class that can write named features declares `holds_features = True`. Every other class
    receives `info` and the episodes without features.
    """

    def append(self, episode: Episode) -> None:
        """Write an episode; raises a DataError that names it if the format cannot hold it."""

    def finish(self) -> None:
        """Complete the dataset: write what is known only after all episodes; close all files."""

    def close(self) -> None:
        """Close files that are still open; always called last, also after an error."""
