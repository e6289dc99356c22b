"""What the reader and the writer of another format must do: EpisodeSource and EpisodeSink."""

from collections.abc import Sequence
from typing import Protocol

from core.episodes.episode import Episode, StoreInfo


class EpisodeSource(Protocol):
    """A dataset in another format, which is read episode by episode.

    Built once for each import, as `build(config, *, source: Path)`. Each process that reads gets a
    pickled copy of the source, and open files cannot be pickled. So a source holds only paths and
    positions in files, and opens the files in `read`.
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
