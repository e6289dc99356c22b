"""joinery collect ENVIRONMENT OUT.zarr: let an environment's expert demonstrate its tasks, into an episode store."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from core.cli import command
from core.data.location import local_path
from core.errors import DataError, RecipeError, did_you_mean
from core.rollout.workers import (
    Description,
    EnvironmentFailed,
    EnvironmentSpec,
    describe,
    open_workers,
)

if TYPE_CHECKING:  # --help waits for nothing heavy
    from rich.console import Console
    from rich.table import Table

    from core.rollout.ledger import Ledger, Report, TaskRecord

LINES = 20  # of progress, where there is no terminal
BUILD_SECONDS, STEP_SECONDS = 60.0, 1.0  # that an environment may take, generously, before it counts as hung


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
    broken: attempts, counted as failed, in which the environment broke twice: "<task>/<seed>: reason".
    """

    added: int
    tasks: Mapping[str, TaskSummary]
    bytes: int
    broken: tuple[str, ...]

    def __str__(self) -> str:
        kept = sum(task.kept for task in self.tasks.values())
        frames = sum(task.frames for task in self.tasks.values())
        return f"{self.added} episodes recorded; {kept} episodes, {frames} frames, {self.bytes / 1e6:.1f} MB"


# ---------------------------------------------------------------------------------------------- collecting


def collect(
    spec: EnvironmentSpec,
    out: Path,
    tasks: Sequence[str],
    episodes: int,
    noise: float,
    workers: int | None = None,
    progress: "Report" = lambda _: None,
) -> Summary:
    """Append demonstrations to a store until it has `episodes` of each task; what it has stays as it is.

    tasks: their names; all if there are none.
    noise: standard deviation of the expert's disturbances.
    workers: processes; as many as cores by default. The store does not depend on it.
    progress: called with every task's record after each attempt.

    Raises DataError for an unknown task, an environment that has no expert or cannot be built, an expert that fails
    nearly always, and a store of other conventions or another origin; episodes committed before stay.
    """
    from core.data.writer import StoreWriter
    from core.rollout.ledger import Ledger
    from core.rollout.recording import attempts, record

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


# ---------------------------------------------------------------------------------------------- before and after


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
        raise DataError("\n".join(f"no task is called '{name}'{did_you_mean(name, known)}" for name in unknown))
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
    from core.data.attributes import read_attributes

    if not (out / "zarr.json").exists():
        return
    theirs = read_attributes(out)[0].origin
    pairs = zip_longest(theirs.split("; "), ours.split("; "), fillvalue="nothing")
    if different := [f"'{there}' there, '{here}' here" for there, here in pairs if there != here]:
        raise DataError(f"{out}: holds episodes of another origin: {'; '.join(different)}; choose another path")


def _summary(out: Path, ledger: "Ledger", added: int) -> Summary:
    from core.data.store import EpisodeStore

    store = EpisodeStore(out)
    frames = dict.fromkeys(ledger.tasks, 0)
    for episode in range(len(store)):
        if (task := store.task_name(episode)) in frames:
            frames[task] += int(store.length[episode])
    tasks = {name: TaskSummary(record.kept, record.failed, frames[name]) for name, record in ledger.tasks.items()}
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Summary(added, tasks, size, tuple(ledger.broken))


# ---------------------------------------------------------------------------------------------- the command


@contextmanager
def live_progress(episodes: int, console: "Console") -> Iterator["Report"]:
    """Show `collect`'s progress: a bar on a terminal, a line now and then elsewhere. Yields what it is to call.

    episodes: of each task, as `collect` is told.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = ("collecting", MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown, started, printed = bar.add_task("", total=None), time.perf_counter(), 0

        def report(records: Mapping[str, "TaskRecord"]) -> None:
            nonlocal printed
            total = episodes * len(records)
            kept = sum(min(record.kept, episodes) for record in records.values())
            text = _rates(list(records.values()), time.perf_counter() - started)
            bar.update(shown, total=total, completed=kept, description=text)
            if not console.is_terminal and (kept - printed) * LINES >= total:
                console.print(f"{kept}/{total} demonstrations  {text}", soft_wrap=True)
                printed = kept

        yield report


def _rates(records: Sequence["TaskRecord"], seconds: float) -> str:
    kept, tried = sum(record.kept for record in records), sum(record.tried for record in records)
    frames = sum(record.frames for record in records)
    return f"{kept / max(1, tried):.1%} successful  {frames / max(seconds, 1e-9):.0f} frames/s"


def _table(summary: Summary) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table("task", *("kept", "failed", "mean length"), box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, task in summary.tasks.items():
        table.add_row(escape(name), str(task.kept), str(task.failed), f"{task.frames / max(1, task.kept):.1f}")
    return table


def _spec(name: str, settings: Sequence[str]) -> EnvironmentSpec:
    """Find an environment and check its settings; raises RecipeError for what is unknown."""
    from core.checking import fill, parse_settings
    from core.plugins import load_plugins

    catalogue = load_plugins()
    component = catalogue["environment"].get(name)
    if component is None:
        raise RecipeError(f"environment: {catalogue.explain_unknown('environment', name)}")
    mistakes: list[str] = []
    config = fill(component.config, parse_settings(settings, mistakes), name, mistakes)
    if mistakes:
        raise RecipeError(mistakes)
    return EnvironmentSpec(name, component.build, config)


def _count(text: str) -> int:
    from core.sections import MOST_DEMONSTRATIONS

    if not 1 <= (number := int(text)) <= MOST_DEMONSTRATIONS:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and {MOST_DEMONSTRATIONS:,}")
    return number


def _noise(text: str) -> float:
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{number:g} is not between 0 and 1")
    return number


def _parser() -> argparse.ArgumentParser:
    from core.sections import DemonstrationsConfig

    usual = DemonstrationsConfig()
    parser = argparse.ArgumentParser(prog="joinery collect", description="Let an expert demonstrate tasks.")
    parser.add_argument("environment", help="a world that `joinery plugins environment` lists")
    parser.add_argument("out", type=local_path, help="the store, new or to be continued: name.zarr")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the environment")
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=[], help="a,b,c; default: all")
    parser.add_argument(
        "--episodes", type=_count, default=usual.episodes, help=f"successes of each task; default: {usual.episodes}"
    )
    parser.add_argument(
        "--noise", type=_noise, default=usual.noise, help=f"how much it is disturbed; default: {usual.noise:g}"
    )
    parser.add_argument("--workers", type=_count, help="processes; default: one for each core")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Collect demonstrations."""
    arguments = _parser().parse_intermixed_args(argv)
    spec = _spec(arguments.environment, arguments.settings)

    from rich.console import Console

    with live_progress(arguments.episodes, Console(stderr=True)) as report:
        summary = collect(
            spec, arguments.out, arguments.tasks, arguments.episodes, arguments.noise, arguments.workers, report
        )
    Console().print(_table(summary))
    for attempt in summary.broken:
        print(f"{attempt}; counted as failed", file=sys.stderr)
    print(f"{arguments.out}: {summary}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
