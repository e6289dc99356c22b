"""What the reader and the writer of another format must do: EpisodeSource and EpisodeSink."""

from collections.abc import Sequence
from typing import Protocol

from core.episodes.episode import Episode, StoreInfo


class EpisodeSource(Protocol):
    """A dataset in another format, which is read episode by episode.

    Built once for each import, as `build(config, *, source: Path)`. Each process that reads gets a
    pickled copy, so a source holds paths and positions, and opens files in `read`.
    """

    info: StoreInfo

    def ids(self) -> Sequence[str]:
        """Return the names of all episodes, the same at every call.

        An import that is resumed skips the names that its store already holds. If the episodes of a
        file cannot be listed, the file counts as one name, and `read` of that name raises the
        error. An import that skips damaged episodes then also skips a damaged file.
        """

    def read(self, episode: str) -> Episode:
        """Read one whole episode; raises a DataError that names the file and the episode."""


class EpisodeSink(Protocol):
    """A dataset in another format, which is written episode by episode.

    Built as `build(config, *, info: StoreInfo, out: Path)`. Nothing exists at `out` yet; the sink
    makes a file or a folder there. `out` is a temporary name: the finished dataset is moved to
    where the user wants it, and an unfinished one is removed, so that half a dataset is never taken
    for a whole one.

    A class that can write named features declares `holds_features = True`; for all others, `info`
    and the episodes come without features.
    """

    def append(self, episode: Episode) -> None:
        """Write an episode; if the format cannot hold it, raises a DataError that names it."""

    def finish(self) -> None:
        """Write what is known only at the end and close all files; the dataset is then complete."""

    def close(self) -> None:
        """Close files that are still open; always called last, whether or not `finish` was."""
