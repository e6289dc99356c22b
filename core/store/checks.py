"""What a store says of itself in one place must fit what it says in another."""

import numpy as np

from core.episodes.episode import StoreInfo
from core.episodes.statistics import GRID, Statistics
from core.errors import DataError
from core.store.layout import Commit, commit_file, stream_paths
from core.store.location import Location


def check_commit(path: Location, info: StoreInfo, number: int, commit: Commit) -> None:
    """Raise DataError if a store's metadata and the arrays of a commit contradict each other."""
    contradictions = []
    widths = {"action": info.action.dim, "proprio": len(info.proprio)}
    for name, width in widths.items():
        if name not in commit.arrays or commit.arrays[name].shape != (commit.frames, width):
            contradictions.append(f"{name} of {commit.frames} frames and {width} names")
    for name, stream in stream_paths(info).items():
        if not {f"{stream}/{array}" for array in ("data", "end", "crc")} <= commit.arrays.keys():
            contradictions.append(f"a {'camera' if name in info.cameras else 'feature'} '{name}'")
    for name, width in widths.items():
        statistics = commit.statistics.get(name)
        if statistics is not None and not _is_whole(statistics, width):
            contradictions.append(f"statistics of {width} numbers")
    if contradictions:
        raise DataError(
            f"{path / 'zarr.json'}: promises {contradictions[0]}, {commit_file(path, number).name} "
            "says otherwise; restore it or import again"
        )


def check_episodes(
    segment: Location, commit: tuple[int, int, int], lengths: np.ndarray, tasks: np.ndarray
) -> None:
    """Raise DataError unless a segment's arrays of episodes fit its commit.

    commit: its numbers of frames, of episodes and of tasks. lengths: (n) of the segment's
    episodes. tasks: (n), their indices into the commit's tasks.
    """
    frames, episodes, known_tasks = commit
    fits = lengths.shape == tasks.shape == (episodes,) and (lengths > 0).all()
    fits = fits and lengths.sum(dtype=np.int64) == frames
    if not (fits and ((tasks >= 0) & (tasks < known_tasks)).all()):
        raise DataError(
            f"{segment}: its episodes are not those of its commit; restore it or import again"
        )


def _is_whole(statistics: Statistics, width: int) -> bool:
    rows = (statistics.means, statistics.deviations, statistics.quantiles)
    is_wide = all(len(row) == width for row in rows)
    return is_wide and all(len(row) == len(GRID) for row in statistics.quantiles)
