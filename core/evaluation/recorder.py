"""Records each task's first success and first failure as films, for people to look at."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from zlib import crc32

from core.episodes.episode import StoreInfo
from core.evaluation.film_recording import EncodingThread, FilmRecording
from core.rollout.plan import PlannedAttempt, PlannedRollout, planned_rollout
from core.rollout.results import STANDARD, EpisodeResult, Result

# A file's name may have 255 bytes, of which its ending and a temporary name take some.
LONGEST_STEM = 100


class RolloutRecorder:
    """Keeps each task's first success and first failure under the standard condition.

    "First" means first in the plan, so that the films depend neither on the number of parallel
    attempts nor on interruptions. A film is written as soon as its attempt ends, and is replaced if
    an attempt that comes earlier in the plan ends later. A recording that cannot become such a film
    any more is dropped at once.

    folder: where the films are written.
    results: results of the attempts that had ended before an interruption; if one of them had to
        be recorded, its film exists already.
    info: names the cameras and the gripper.

    At the end of a `with` block, films of attempts that have not ended are dropped.
    """

    def __init__(
        self,
        folder: Path,
        plan: Sequence[PlannedRollout],
        results: Sequence[Result],
        info: StoreInfo,
    ) -> None:
        self._folder, self._info, self._thread = folder, info, EncodingThread()
        self._position = {planned: position for position, planned in enumerate(plan)}
        self._recorded: dict[tuple[str, bool], int] = {}  # {(task, success): position in the plan}
        self._recordings: dict[PlannedRollout, FilmRecording] = {}  # of attempts that go on
        self._stems = _file_stems(p.task for p in plan if isinstance(p, PlannedAttempt))
        for result in results:
            if isinstance(result, EpisodeResult):
                self._remember_if_first(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for recording in self._recordings.values():
            recording.drop()
        self._thread.close()

    def begin(self, attempt: PlannedAttempt) -> FilmRecording | None:
        """Begin to record an attempt, if it may be a first success or failure."""
        if not self._may_be_first(attempt):
            return None
        recording = FilmRecording(self._folder, self._info, self._thread)
        self._recordings[attempt] = recording
        return recording

    def save(self, result: Result) -> None:
        """Write the film of an attempt that ended, if it is a first success or failure so far."""
        if not isinstance(result, EpisodeResult):
            return
        recording = self._recordings.pop(planned_rollout(result), None)
        is_first = self._remember_if_first(result)
        if recording is not None and is_first:
            self._write(recording, result)
        elif recording is not None:
            recording.drop()
        for attempt in [a for a in self._recordings if not self._may_be_first(a)]:
            self._recordings.pop(attempt).drop()

    def _write(self, recording: FilmRecording, result: EpisodeResult) -> None:
        kind = "success" if result.success else "failure"
        path = self._folder / f"{self._stems[result.task]}-{kind}.mp4"
        recording.save(path, result)
        # written by an earlier version, before an interruption
        path.with_suffix(".npz").unlink(missing_ok=True)

    def _may_be_first(self, attempt: PlannedRollout) -> bool:
        """Return whether an attempt may turn out to be its task's first success or failure."""
        if not isinstance(attempt, PlannedAttempt) or attempt.condition != STANDARD:
            return False
        behind_all = len(self._position)
        recorded = [
            self._recorded.get((attempt.task, success), behind_all) for success in (True, False)
        ]
        return self._position[attempt] < max(recorded)

    def _remember_if_first(self, result: EpisodeResult) -> bool:
        """Return whether a result is its task's first success or failure so far; if so, note it."""
        if result.condition != STANDARD or result.failure is not None:
            return False
        kind, position = (result.task, result.success), self._position[planned_rollout(result)]
        self._recorded[kind] = min(position, self._recorded.get(kind, position))
        return self._recorded[kind] == position


def _file_stems(tasks: Iterable[str]) -> dict[str, str]:
    """Return {task: how its files' names begin}; they differ also where capitals do not count."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for task in dict.fromkeys(tasks):
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", task)[:LONGEST_STEM]
        if stem.casefold() in taken:
            stem += f"-{crc32(task.encode()):08x}"
        stems[task] = stem
        taken.add(stem.casefold())
    return stems
