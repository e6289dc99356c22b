"""joinery collect ENVIRONMENT OUT.zarr: let an environment's expert demonstrate its tasks, into an
episode store.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from core.environments.workers import (
    Description,
    EnvironmentFailed,
    EnvironmentSpec,
    describe,
    open_workers,
)
from core.errors import DataError, did_you_mean

if TYPE_CHECKING:  # --help waits for nothing heavy
    from core.demonstrations.schedule import Ledger, Report

LINES = 20  # of progress, where there is no terminal
BUILD_SECONDS, STEP_SECONDS = (
    60.0,
    1.0,
)  # that an environment may take, generously, before it counts as hung


@dataclass(frozen=True)
class TaskSummary:
    """What a store holds of one task.

    kept, failed: the expert's successes, and the attempts between them that were none.
    frames: of all kept episodes.
    """

    kept: int
    failed: int
    frames: int


@dataclass(frozen=True)
class Summary:
    """What a store holds after a collection.

    added: episodes that were recorded just now.
    tasks: those that were asked for, by name.
    bytes: size of all files.
    broken: attempts, counted as failed, in which the environment broke twice: "<task>/<seed>:
    reason".
    """

    added: int
    tasks: Mapping[str, TaskSummary]
    bytes: int
    broken: tuple[str, ...]

    def __str__(self) -> str:
        kept = sum(task.kept for task in self.tasks.values())
        frames = sum(task.frames for task in self.tasks.values())
        return f"{self.added} episodes recorded; {kept} episodes, {frames} frames, {self.bytes / 1e6:.1f} MB"


# --------------------------------------------------------------------------------------- collecting


def collect(
    spec: EnvironmentSpec,
    out: Path,
    tasks: Sequence[str],
    episodes: int,
    noise: float,
    workers: int | None = None,
    progress: "Report" = lambda _: None,
) -> Summary:
    """Append demonstrations to a store until it has `episodes` of each task; what it has stays as
    it is.

    tasks: their names; all if there are none.
    noise: standard deviation of the expert's disturbances.
    workers: processes; as many as cores by default. The store does not depend on it.
    progress: called with every task's record after each attempt.

    Raises DataError for an unknown task, an environment that has no expert or cannot be built, an
    expert that fails nearly always, and a store of other conventions or another origin; episodes
    committed before stay.
    """
    from core.demonstrations.recording import attempts, record
    from core.demonstrations.schedule import Ledger
    from core.store.writer import StoreWriter

    description = _describe(spec)
    names = _chosen(tasks, description)
    origin = _origin(spec, description, noise)
    writer = StoreWriter(out, replace(description.info, origin=origin))
    _check_origin(out, origin)
    ledger = Ledger(names, episodes, writer.committed)
    before = len(writer.committed)
    if ledger.missing:
        longest = max(description.tasks[name].max_steps for name in names)
        count = min(workers or core_count(), ledger.missing)
        with open_workers(spec, count, BUILD_SECONDS + STEP_SECONDS * longest) as started:
            record(writer, ledger, attempts(started, ledger, noise), progress)
    return _summary(out, ledger, len(writer.committed) - before)


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --------------------------------------------------------------------------------- before and after


def _describe(spec: EnvironmentSpec) -> Description:
    with open_workers(spec, 1, BUILD_SECONDS) as (worker,):
        worker.submit(describe)
        try:
            description: Description = worker.result()
        except EnvironmentFailed as failure:
            raise DataError(f"environment '{spec.name}' cannot be built: it {failure}") from None
    return description


def _chosen(tasks: Sequence[str], description: Description) -> list[str]:
    known = list(description.tasks)
    if unknown := [name for name in tasks if name not in known]:
        raise DataError(
            "\n".join(f"no task is called '{name}'{did_you_mean(name, known)}" for name in unknown)
        )
    return list(dict.fromkeys(tasks)) or known


def _origin(spec: EnvironmentSpec, description: Description, noise: float) -> str:
    """Say all that the episodes depend on, beside their seeds."""
    versions = {"joinery": metadata.version("joinery"), **description.versions}
    return "; ".join(
        [
            description.info.origin or "simulated",
            f"demonstrated by the expert of environment '{spec.name}' with noise {noise:g}",
            f"settings {json.dumps(asdict(spec.config), default=str)}",
            f"versions {', '.join(f'{name} {version}' for name, version in versions.items())}",
        ]
    )


def _check_origin(out: Path, ours: str) -> None:
    """Raise DataError where a store's episodes do not come from where ours will."""
    from core.store.attributes import read_attributes

    if not (out / "zarr.json").exists():
        return
    theirs = read_attributes(out)[0].origin
    pairs = zip_longest(theirs.split("; "), ours.split("; "), fillvalue="nothing")
    if different := [f"'{there}' there, '{here}' here" for there, here in pairs if there != here]:
        raise DataError(
            f"{out}: holds episodes of another origin: {'; '.join(different)}; choose another path"
        )


def _summary(out: Path, ledger: "Ledger", added: int) -> Summary:
    from core.store.store import EpisodeStore

    store = EpisodeStore(out)
    frames = dict.fromkeys(ledger.tasks, 0)
    for episode in range(len(store)):
        if (task := store.task_name(episode)) in frames:
            frames[task] += int(store.length[episode])
    tasks = {
        name: TaskSummary(record.kept, record.failed, frames[name])
        for name, record in ledger.tasks.items()
    }
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Summary(added, tasks, size, tuple(ledger.broken))


# -------------------------------------------------------------------------------------- the command
