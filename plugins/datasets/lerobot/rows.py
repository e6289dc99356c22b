"""The rows of an episode: those of the table that say so, in the order of their frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core import DataError
from plugins.datasets.lerobot.layout import EpisodeLocation, Layout, column_names, read_table

EPISODE, FRAME, TASK, TIME = "episode_index", "frame_index", "task_index", "timestamp"


@dataclass(frozen=True)
class Rows:
    """The rows of an episode of n frames.

    columns: {feature: (n) cells}.
    times: (n) float64, when each frame was recorded, in seconds from the episode's beginning.
    tasks: index of each row's task; empty if the table does not say.
    """

    columns: Mapping[str, Sequence[Any]]
    times: np.ndarray
    tasks: Sequence[Any]


class RowReader:
    """Finds and reads the rows of episodes.

    Like LeRobot, it trusts what a row says about itself: its episode, its frame and its time. Which
    file holds the rows is looked up if the file that meta/ names does not hold them, because some
    converters name the wrong one at the boundary of two files.
    """

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root, self.layout = root, layout

    def read(self, episode: int, location: EpisodeLocation, features: Sequence[str]) -> Rows:
        """Read some features of an episode's rows.

        Raises DataError if the rows are not as many as meta/ says, or if a feature is missing.
        """
        columns = self._read_table(location.table, episode, features)
        if _count(columns) != location.length and self.layout.shares_tables:
            files = self._files_of.get(episode, [])
            if files and files != [location.table]:
                parts = [self._read_table(file, episode, features) for file in files]
                columns = {key: [x for part in parts for x in part[key]] for key in parts[0]}
        count = _count(columns)
        if count != location.length:
            raise DataError(
                f"{location.table}: episode {episode} has {count} rows, and meta/ says "
                f"{location.length}; copy the table again, or correct the length in meta/"
            )
        order = self._order(columns, count)
        times = np.arange(count) / self.layout.fps
        if TIME in columns:
            times = np.array(columns[TIME], np.float64).reshape(-1)[order]
            if not np.isfinite(times).all():
                raise DataError(
                    f"{location.table}: episode {episode} has rows without a time; fill in the "
                    f"column {TIME}, or drop it if frames come at a steady rate"
                )
        return Rows(
            {key: [columns[key][i] for i in order] for key in features},
            times,
            columns.get(TASK, ()),
        )

    def _read_table(
        self, file: Path, episode: int, features: Sequence[str]
    ) -> dict[str, list[Any]]:
        """Return {column: its cells} of an episode's rows in one file."""
        known = column_names(file)
        if missing := [key for key in features if key not in known]:
            raise DataError(
                f"{file}: has no column {', '.join(missing)}, which meta/info.json lists; "
                "name other features, or write the table anew (a video's place is in "
                "meta/episodes)"
            )
        wanted = [*dict.fromkeys([*features, *(k for k in (FRAME, TASK, TIME) if k in known)])]
        by_episode = episode if EPISODE in known else None
        if by_episode is None and self.layout.shares_tables:
            raise DataError(
                f"{file}: holds several episodes and no column {EPISODE}, which says whose a row "
                "is; add it, or copy the table again"
            )
        return read_table(file, wanted, by_episode)

    @cached_property
    def _files_of(self) -> dict[int, list[Path]]:
        """{episode: the tables that hold its rows}, by what the rows say."""
        files: dict[int, list[Path]] = {}
        for file in sorted((self.root / "data").glob("**/*.parquet")):
            for episode in sorted(set(read_table(file, [EPISODE])[EPISODE])):
                files.setdefault(int(episode), []).append(file)
        return files

    def _order(self, columns: Mapping[str, Sequence[Any]], count: int) -> list[int]:
        """Return the indices of the rows in the order of their frames."""
        for key in (FRAME, TIME):
            if key in columns and None not in columns[key]:
                return sorted(range(count), key=lambda row: columns[key][row])
        return list(range(count))


def _count(columns: Mapping[str, Sequence[Any]]) -> int:
    """Return the number of rows."""
    return len(next(iter(columns.values()), ()))
