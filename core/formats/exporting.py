"""A store's episodes into another format: one after the other, and the dataset appears whole or not
at all.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from core.errors import DataError
from core.formats.contracts import EpisodeSink
from core.store.store import EpisodeStore
from core.system.files import sync, tree
from core.system.strict import one_line

MakeSink = Callable[..., EpisodeSink]


@dataclass(frozen=True)
class Summary:
    """What was written: episodes, their frames, and the bytes of all files."""

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
) -> Summary:
    """Write a store's episodes, in its order, to a file or folder that is not there yet.

    make: builds the sink, called as `make(info=..., out=...)`. progress: called with (done, total)
    after each episode.
    holds_features: whether the format has a place for named features; else they are left out.

    One episode is in memory at a time. Raises DataError if an episode is damaged, the format cannot
    hold it, `out` exists or the disk refuses; nothing is left of the work then.
    """
    if not len(store):
        raise DataError(f"{store.path}: holds no episodes; import some")
    _refuse_existing(out)
    aside = out.parent / f".{uuid4().hex}.{out.name}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        info = store.info if holds_features else replace(store.info, features={})
        with closing(make(info=info, out=aside)) as sink:
            for number in range(len(store)):
                episode = store.read(number)
                sink.append(episode if holds_features else replace(episode, features={}))
                progress(number + 1, len(store))
            sink.finish()
        size = _publish(aside, out)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(
            f"{out}: cannot write ({reason}); make room or choose another path"
        ) from error
    finally:
        _remove(aside)
    return Summary(len(store), store.frame_count, size)


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):  # a link that leads nowhere, too
        raise DataError(f"{out}: is there already; name another path or remove it")


def _publish(aside: Path, out: Path) -> int:
    """Move what is finished to its place, once it is on the disk; return its size in bytes."""
    sync(*tree(aside))
    _refuse_existing(out)
    os.rename(aside, out)
    sync(out.parent)
    return sum(file.stat().st_size for file in tree(out) if file.is_file())


def _remove(aside: Path) -> None:
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        with suppress(OSError):
            aside.unlink()
