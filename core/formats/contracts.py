"""What the readers and the writers of other formats must do."""

from collections.abc import Sequence
from typing import Protocol

from core.episodes.episode import Episode, StoreInfo


class EpisodeSource(Protocol):
    """A dataset in somebody's format. Built as `build(config, *, source: Path)`, once for each
    import.

    Picklable, for the processes that read get a copy each: it holds paths and places, and opens
    files in `read`.
    """

    info: StoreInfo

    def ids(self) -> Sequence[str]:
        """Names of the episodes, the same every time: a resumed import skips those it has.

        A file whose episodes cannot be listed is one name here, and `read` says what is wrong with
        it: one damaged
        file among many then ends no import that skips damage.
        """

    def read(self, episode: str) -> Episode:
        """One whole episode; raises DataError that names the file and the episode."""


class EpisodeSink(Protocol):
    """A dataset that is being written in somebody's format. Built as `build(config, *, info:
    StoreInfo, out: Path)`.

    Nothing is at `out` yet, and the sink makes a file or a folder there. It is moved to where its
    reader looks for it when it is finished, and removed otherwise, so that half a dataset is never
    taken for a whole one.

    A class that can write features says so with `holds_features = True`; to others, `info` and
    episodes come without.
    """

    def append(self, episode: Episode) -> None:
        """Add an episode; raises DataError that names it if the format cannot hold it."""

    def finish(self) -> None:
        """Write what only the end can tell, and close the files: the dataset is whole when this
        returns.
        """

    def close(self) -> None:
        """Let go of open files; called last in any case, whether `finish` was called or not."""
