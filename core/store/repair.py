"""`joinery repair STORE.zarr`: damaged parts go, and the episodes in them that are whole move to a
new one.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import numpy as np

from core.errors import DataError
from core.store.attributes import read_attributes
from core.store.layout import Commit, commit_file, read_commit, serialise, stream_paths
from core.store.segment import DamagedBlock, EncodedEpisode, FrameStream, PendingSegment, read_array
from core.store.verify import Damage, commit_numbers
from core.system.files import sync

NEW, OLD, DAMAGED = "commits.repaired", "commits.damaged", "parts.damaged"


@dataclass(frozen=True)
class Repaired:
    """What became of the episodes in damaged parts.

    saved: how many are kept. lost: ids of those that are not, as far as a commit still names them.
    """

    saved: int
    lost: tuple[str, ...]


def repair(path: Path, damages: Sequence[Damage]) -> Repaired:
    """Keep what is whole: other parts stay as they are, whole episodes of damaged ones follow
    behind them.

    The new list of commits is built aside and takes the old one's place in one go. What is damaged
    stays aside. Nobody may write to the store meanwhile. Raises DataError where the disk refuses.
    """
    info, codecs = read_attributes(path)
    damaged = {damage.number: damage.commit for damage in damages}
    kept = [
        read_commit(commit_file(path, number))
        for number in commit_numbers(path)
        if number not in damaged
    ]
    known = {episode for commit in kept for episode in commit.episodes}
    paths, groups = stream_paths(info), {name: codec.group for name, codec in codecs.items()}
    broken = [commit for commit in damaged.values() if commit is not None]
    saved: list[Commit] = []
    for commit in broken:
        pending = PendingSegment(paths)
        for episode in whole_episodes(path / "parts" / commit.part, commit, paths, groups):
            if episode.id not in known:
                known.add(episode.id)
                pending.append(episode)
        saved += [pending.write(path / "parts" / uuid4().hex)] if pending.episodes else []
    _replace_commits(path, [*kept, *saved])
    _put_aside(path, {commit.part for commit in (*kept, *saved)})
    lost = [episode for commit in broken for episode in commit.episodes if episode not in known]
    return Repaired(sum(len(commit.episodes) for commit in saved), tuple(lost))


def whole_episodes(
    part: Path, commit: Commit, paths: Mapping[str, str], group_sizes: Mapping[str, int]
) -> Iterator[EncodedEpisode]:
    """The episodes of a part all of whose numbers and frames pass their checksums; none if the
    numbers do not.

    paths, group_sizes: of each camera and each feature, where in the part its groups lie, and how
    many frames are one.
    """
    try:
        ends = read_array(part, "episode/end", commit.arrays, "<i4")
        tasks = read_array(part, "episode/task", commit.arrays, "<i4")
        actions, proprio = (_numbers(part, commit, feature) for feature in ("action", "proprio"))
        streams = {name: FrameStream(part, where, commit.arrays) for name, where in paths.items()}
    except DataError:
        return
    starts = np.concatenate([[0], ends[:-1]])
    first = dict.fromkeys(streams, 0)  # group of the episode at hand, in each stream
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        groups = {}
        for name, stream in streams.items():
            count = -(-(end - start) // group_sizes[name])
            groups[name] = _whole_groups(stream, first[name], first[name] + count)
            first[name] += count
        if all(chunks is not None for chunks in groups.values()):
            yield EncodedEpisode(
                id=commit.episodes[number],
                task=commit.tasks[tasks[number]],
                streams={name: chunks for name, chunks in groups.items() if chunks is not None},
                actions=actions[start:end].copy(),
                proprio=proprio[start:end].copy(),
            )


def _numbers(part: Path, commit: Commit, feature: str) -> np.ndarray:
    """(n D) float32; what has no dimensions has no file."""
    shape = commit.arrays[feature].shape
    return (
        np.empty(shape, np.float32)
        if 0 in shape
        else read_array(part, feature, commit.arrays, "<f4")
    )


def _whole_groups(stream: FrameStream, first: int, stop: int) -> list[bytes] | None:
    """The encoded groups first..stop-1, or None if one is damaged."""
    try:
        data, bounds = stream.read(first, stop)
    except (DamagedBlock, OSError):  # OSError: a sector that cannot be read
        return None
    return [data[low - bounds[0] : high - bounds[0]] for low, high in pairwise(bounds)]


def _replace_commits(path: Path, commits: Sequence[Commit]) -> None:
    new, old, now = path / NEW, path / OLD, path / "commits"
    old = old.with_name(f"{OLD}.{uuid4().hex[:8]}") if old.exists() else old
    shutil.rmtree(new, ignore_errors=True)  # of a repair that was interrupted
    try:
        new.mkdir()
        for number, commit in enumerate(commits):
            (new / commit_file(path, number).name).write_text(serialise(commit))
        sync(*new.iterdir(), new)
        os.rename(now, old)
        os.rename(new, now)
        sync(path)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot write ({error.strerror}); make room, then again"
        ) from None


def _put_aside(path: Path, kept: set[str]) -> None:
    """Move the damaged parts away, and what writers that were killed left behind."""
    aside = path / DAMAGED
    for folder in (path / "parts").iterdir():
        if folder.name not in kept:
            aside.mkdir(exist_ok=True)
            folder.rename(aside / folder.name)
