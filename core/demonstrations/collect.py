"""Records an expert that does the tasks of an environment, and stores the episodes.

`joinery collect` and a recipe's [demonstrations] call `collect`.
"""

import json
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
    Worker,
    describe,
    open_workers,
)
from core.errors import DataError, did_you_mean
from core.system.processes import core_count

# A worker process first imports the script that started it, and thereby this module. Only then does
# the worker limit the number of threads of numpy, and only after that may numpy be imported. So
# modules that need numpy are imported inside the functions, not at the top of this module.
if TYPE_CHECKING:
    from core.demonstrations.schedule import DemonstrationSchedule, ProgressCallback

# Generous limits, in seconds, for building an environment and for each step. An environment counts
# as hung if an attempt takes longer than BUILD_SECONDS + STEP_SECONDS * (number of steps allowed).
BUILD_SECONDS, STEP_SECONDS = 60.0, 1.0


@dataclass(frozen=True)
class TaskSummary:
    """The episodes of one task in a store.

    kept: number of the expert's successes.
    failed: number of attempts in which the expert or the environment failed.
    frames: number of frames in all episodes.
    """

    kept: int
    failed: int
    frames: int


@dataclass(frozen=True)
class Summary:
    """The contents of a store after a collection.

    added: number of episodes that this collection recorded.
    tasks: {task: summary} of the tasks that were asked for.
    bytes: size of all files together.
    broken: attempts in which the environment failed, "<task>/<seed>: reason"; they count as failed.
    warnings: lines about the environment: that it ignores its seeds, for example.
    """

    added: int
    tasks: Mapping[str, TaskSummary]
    bytes: int
    broken: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        kept = sum(task.kept for task in self.tasks.values())
        frames = sum(task.frames for task in self.tasks.values())
        megabytes = self.bytes / 1e6
        return (
            f"{self.added} episodes recorded; {kept} episodes, {frames} frames, {megabytes:.1f} MB"
        )


def collect(
    spec: EnvironmentSpec,
    out: Path,
    tasks: Sequence[str],
    episodes: int,
    noise: float,
    workers: int | None = None,
    progress: "ProgressCallback" = lambda _: None,
) -> Summary:
    """Append demonstrations to a store until it has `episodes` demonstrations of each task.

    Episodes that the store already has are not changed.

    out: path of the store, which need not exist.
    tasks: names of the tasks; if empty, all tasks of the environment.
    noise: standard deviation of the expert's disturbances, in the units of the action.
    workers: maximum number of processes; default: one for each core. The contents of the store
        do not depend on this number.
    progress: called with {task: progress} at the start and after each attempt.

    Raises DataError if a task is unknown, if the environment has no expert or cannot be built, if
    the expert nearly always fails, or if the store's conventions or origin differ from those of
    this collection. Episodes that were committed before the error stay in the store.
    """
    from core.demonstrations.recording import record, run_attempts
    from core.demonstrations.schedule import DemonstrationSchedule
    from core.environments.environment import default_tasks
    from core.store.writer import StoreWriter

    description = _describe_environment(spec)
    if not description.has_expert:
        raise DataError(
            f"{spec} has no expert that demonstrates its tasks; give it a method `expert`, or "
            "import demonstrations"
        )
    known = list(description.tasks)
    if unknown := [name for name in tasks if name not in known]:
        raise DataError(
            "\n".join(f"no task is called '{name}'{did_you_mean(name, known)}" for name in unknown)
        )
    names = list(dict.fromkeys(tasks)) or default_tasks(description.tasks)
    origin = _origin(spec, description, noise)
    writer = StoreWriter(out, replace(description.info, origin=origin))
    _check_origin(out, origin)
    schedule = DemonstrationSchedule(names, episodes, writer.committed, noise)
    episodes_before = len(writer.committed)
    warnings: list[str] = []
    if schedule.missing:
        max_steps = max(description.tasks[name].max_steps for name in names)
        timeout = BUILD_SECONDS + STEP_SECONDS * max_steps
        count = min(workers or core_count(), schedule.missing)
        with open_workers(spec, count, timeout) as open_processes:
            warnings = _warnings(open_processes[0], names[0], description)
            outcomes = run_attempts(open_processes, schedule, noise, description.replayable)
            record(writer, schedule, outcomes, progress)
    summary = _summary(out, schedule, len(writer.committed) - episodes_before)
    warnings += _first_step_warnings(summary, description)
    return replace(summary, warnings=tuple(warnings))


def _describe_environment(spec: EnvironmentSpec) -> Description:
    with open_workers(spec, 1, BUILD_SECONDS) as (worker,):
        worker.submit(describe)
        try:
            description: Description = worker.result()
        except EnvironmentFailed as failure:
            raise DataError(f"{spec} cannot be built: it {failure}") from None
    return description


def _warnings(worker: Worker, task: str, description: Description) -> list[str]:
    """Begin the first attempt twice; return a line if its scene is not the same."""
    from core.environments.recovery import EnvironmentCall, reset
    from core.environments.repeatability import scene_differences, warning

    call = EnvironmentCall(reset, (task, 0))
    differences = scene_differences(worker, call, description.replayable)
    line = warning(str(worker.spec), call, differences)
    return [] if line is None else [line]


def _first_step_warnings(summary: Summary, description: Description) -> list[str]:
    """Return a line for each task of which every attempt was done after its first step."""
    from core.environments.first_steps import first_step_warning

    lines = []
    for name, task in summary.tasks.items():
        # a demonstration has at least one frame, so all have one if there are as many frames
        steps = [1] * task.kept if task.frames == task.kept and not task.failed else []
        lines.append(first_step_warning(name, steps, description.tasks[name].max_steps))
    return [line for line in lines if line is not None]


def _origin(spec: EnvironmentSpec, description: Description, noise: float) -> str:
    """Return a text with everything that determines the episodes, apart from their seeds."""
    versions = {"joinery": metadata.version("joinery"), **description.versions}
    return "; ".join(
        [
            description.info.origin or "simulated",
            f"demonstrated by the expert of environment '{spec.name}' with noise {noise:g}",
            f"settings {json.dumps(asdict(spec.config), default=str)}",
            f"versions {', '.join(f'{name} {version}' for name, version in versions.items())}",
        ]
    )


def recorded_versions(origin: str) -> dict[str, str]:
    """Return {library: version} of the libraries that an origin says recorded the episodes.

    Empty for the origin of other data, of which no environment recorded the episodes.
    """
    _, _, listed = origin.rpartition("; versions ")
    if listed == origin:
        return {}
    pairs = (entry.rpartition(" ") for entry in listed.split(", "))
    return {name: version for name, _, version in pairs if name}


def _check_origin(out: Path, origin: str) -> None:
    """Raise DataError if the store's episodes were recorded with an origin other than `origin`."""
    from core.store.attributes import read_attributes

    if not (out / "zarr.json").exists():
        return
    stored_origin = read_attributes(out)[0].origin
    pairs = zip_longest(stored_origin.split("; "), origin.split("; "), fillvalue="nothing")
    if differences := [f"'{old}' there, '{new}' here" for old, new in pairs if old != new]:
        raise DataError(
            f"{out}: holds episodes of another origin: {'; '.join(differences)}; "
            "choose another path"
        )


def _summary(out: Path, schedule: "DemonstrationSchedule", added: int) -> Summary:
    from core.store.store import EpisodeStore

    store = EpisodeStore(out)
    frames = dict.fromkeys(schedule.tasks, 0)
    for episode in range(len(store)):
        if (task := store.task_name(episode)) in frames:
            frames[task] += int(store.length[episode])
    tasks = {
        name: TaskSummary(task.kept, task.failed, frames[name])
        for name, task in schedule.tasks.items()
    }
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Summary(added, tasks, size, tuple(schedule.broken))
