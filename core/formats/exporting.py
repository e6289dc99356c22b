"""Write a store's episodes as a dataset of another format, completely or not at all."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import DataError
from core.formats.contracts import EpisodeSink
from core.store.store import EpisodeStore
from core.system.files import sync, tree, written_aside
from core.system.strict import one_line

MakeSink = Callable[..., EpisodeSink]


@dataclass(frozen=True)
class ExportSummary:
    """Number of episodes, number of frames and number of bytes that an export wrote."""

    episodes: int
    frames: int
    bytes: int


def export_episodes(
    store: EpisodeStore,
    make: MakeSink,
    out: Path,
    progress: Callable[[int, int], None],
    *,
    holds_features: bool = False,
) -> ExportSummary:
    """Write a store's episodes, in the store's order, to the new file or folder `out`.

    make: builds the sink, called as `make(info=..., out=...)`.
    progress: called after each episode with (number of episodes done, number of all episodes).
    holds_features: whether the format can hold named features; if not, features are left out.

    Only one episode at a time is in memory. Raises DataError if an episode is damaged, if the
    format cannot hold an episode, if `out` exists, or if the disk refuses to write. After an error,
    nothing that was written remains.
    """
    if not len(store):
        raise DataError(f"{store.path}: holds no episodes; import some")
    _refuse_existing(out)
    info = store.info if holds_features else replace(store.info, features={})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A sink may look at the suffix of its file, as numpy does.
        with written_aside(out, keep_suffix=True) as aside:
            with closing(make(info=info, out=aside)) as sink:
                for number in range(len(store)):
                    episode = store.read(number)
                    sink.append(episode if holds_features else replace(episode, features={}))
                    progress(number + 1, len(store))
                sink.finish()
            sync(*tree(aside))
            _refuse_existing(out)  # another program may have written it in the meantime
        sync(out.parent)
        size = sum(file.stat().st_size for file in tree(out) if file.is_file())
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(
            f"{out}: cannot write ({reason}); make room or choose another path"
        ) from error
    return ExportSummary(len(store), store.frame_count, size)


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):  # also True for a symbolic link whose target is missing
        raise DataError(f"{out}: is there already; name another path or remove it")
