"""`joinery repair STORE.zarr`: replace damaged segments by their undamaged episodes."""

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
from core.store.checks import check_commit, check_episodes
from core.store.layout import (
    Commit,
    commit_file,
    read_commit,
    segment_folder,
    serialise,
    stream_paths,
)
from core.store.segment import (
    DamagedBlock,
    EncodedEpisode,
    FrameStream,
    PendingSegment,
    read_array,
)
from core.store.verify import Damage, commit_numbers
from core.system.files import sync
from core.system.links import refuse_links_out

NEW, OLD, DAMAGED = "commits.repaired", "commits.damaged", "parts.damaged"


@dataclass(frozen=True)
class RepairResult:
    """What became of the episodes in damaged segments.

    saved: number of episodes that were saved.
    lost: ids of the episodes that were lost; if a commit is damaged, the ids of its episodes are
        unknown and not included.
    """

    saved: int
    lost: tuple[str, ...]


def repair(path: Path, damages: Sequence[Damage]) -> RepairResult:
    """Save the undamaged episodes of damaged segments in new segments; move damaged ones aside.

    Undamaged segments stay as they are. In the repaired store, the saved episodes come after the
    episodes of the undamaged segments. The new list of commits is written beside the old list and
    then takes the old list's place. The old list is moved aside, too, not removed. No other process
    may write to the store while it is repaired.

    Raises DataError if writing fails, and before anything is written if a link in the store leads
    out of it.
    """
    refuse_links_out(path)
    info, codecs, _ = read_attributes(path)
    damaged_numbers = {damage.number for damage in damages}
    undamaged = [
        read_commit(commit_file(path, number))
        for number in commit_numbers(path)
        if number not in damaged_numbers
    ]
    damaged = {d.number: d.commit for d in damages if d.commit is not None}
    safe_ids = {episode for commit in undamaged for episode in commit.episodes}
    paths = stream_paths(info)
    block_sizes = {name: codec.block_size for name, codec in codecs.items()}
    saved: list[Commit] = []
    for number, commit in damaged.items():
        try:
            check_commit(path, info, number, commit)
        except DataError:  # it lacks arrays, so that none of its episodes is whole
            continue
        pending = PendingSegment(paths)
        segment = segment_folder(path, commit.segment)
        for episode in whole_episodes(segment, commit, paths, block_sizes):
            if episode.id not in safe_ids:
                safe_ids.add(episode.id)
                pending.append(episode)
        if pending.episodes:
            saved.append(pending.write(segment_folder(path, uuid4().hex)))
    commits = [*undamaged, *saved]
    _replace_commits(path, commits)
    _move_aside(path, {commit.segment for commit in commits})
    lost = [
        episode
        for commit in damaged.values()
        for episode in commit.episodes
        if episode not in safe_ids
    ]
    return RepairResult(sum(len(commit.episodes) for commit in saved), tuple(lost))


def whole_episodes(
    segment: Path, commit: Commit, paths: Mapping[str, str], block_sizes: Mapping[str, int]
) -> Iterator[EncodedEpisode]:
    """Yield each episode of a segment if all frames of the episode pass their checksums.

    If any array other than the encoded frames is damaged, or contradicts the commit, no episode of
    the segment can be saved.

    paths: {camera or feature: path of its stream inside the segment}.
    block_sizes: {camera or feature: number of frames in a block}.
    """
    try:
        ends = read_array(segment, "episode/end", commit.arrays, "<i4")
        tasks = read_array(segment, "episode/task", commit.arrays, "<i4")
        counts = commit.frames, len(commit.episodes), len(commit.tasks)
        check_episodes(segment, counts, np.diff(ends, prepend=0), tasks)
        actions = _read_numbers(segment, commit, "action")
        proprio = _read_numbers(segment, commit, "proprio")
        streams = {name: FrameStream(segment, at, commit.arrays) for name, at in paths.items()}
    except DataError:
        return
    starts = np.concatenate([[0], ends[:-1]])
    # {stream: index of the current episode's first block in that stream}
    first_block = dict.fromkeys(streams, 0)
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        blocks_of_streams = {}
        for name, stream in streams.items():
            stop_block = first_block[name] + -(-(end - start) // block_sizes[name])
            blocks = _whole_blocks(stream, first_block[name], stop_block)
            if blocks is not None:
                blocks_of_streams[name] = blocks
            first_block[name] = stop_block
        if len(blocks_of_streams) == len(streams):
            yield EncodedEpisode(
                id=commit.episodes[number],
                task=commit.tasks[tasks[number]],
                streams=blocks_of_streams,
                actions=actions[start:end].copy(),
                proprio=proprio[start:end].copy(),
            )


def _read_numbers(segment: Path, commit: Commit, name: str) -> np.ndarray:
    """Read actions or proprioception, (n D) float32; if D is 0, there is no file to read."""
    shape = commit.arrays[name].shape
    if 0 in shape:
        return np.empty(shape, np.float32)
    return read_array(segment, name, commit.arrays, "<f4")


def _whole_blocks(stream: FrameStream, first: int, stop: int) -> list[bytes] | None:
    """Return the encoded blocks first..stop-1, or None if one of them is damaged."""
    try:
        data, bounds = stream.read(first, stop)
    except (DamagedBlock, OSError):  # OSError: the disk cannot read a sector
        return None
    return [data[low - bounds[0] : high - bounds[0]] for low, high in pairwise(bounds)]


def _replace_commits(path: Path, commits: Sequence[Commit]) -> None:
    """Write a new list of commits, and put it in the place of the old list by two renames."""
    new, old, current = path / NEW, path / OLD, path / "commits"
    old = old.with_name(f"{OLD}.{uuid4().hex[:8]}") if old.exists() else old
    shutil.rmtree(new, ignore_errors=True)  # left by an interrupted repair
    try:
        new.mkdir()
        for number, commit in enumerate(commits):
            (new / commit_file(path, number).name).write_text(serialise(commit))
        sync(*new.iterdir(), new)
        os.rename(current, old)
        os.rename(new, current)
        sync(path)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot write ({error.strerror}); "
            "make room, then repair again"
        ) from None


def _move_aside(path: Path, committed: set[str]) -> None:
    """Move away all segments without a commit: damaged segments and leftovers of killed writers."""
    aside = path / DAMAGED
    for folder in (path / "parts").iterdir():
        if folder.name not in committed:
            aside.mkdir(exist_ok=True)
            folder.rename(aside / folder.name)
