"""Runs a sweep: plans its runs, has those done that are missing, compares the results."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import fmean

from rich.console import Console

from core.errors import ConfigError
from core.evaluation.files import write_file
from core.evaluation.preparation import prepare
from core.registry.catalogue import Catalogue
from core.report.run_files import read_run
from core.report.sweep_page import write_sweep_page
from core.report.sweep_results import METRICS, SweepResults, VariantRuns, summarize, to_json
from core.sweep.config import SweepConfig
from core.sweep.executors.executor import Executor
from core.sweep.job import Job, command_of
from core.sweep.plan import PlannedRun, plan_runs, refuse_changes, shared_needs
from core.sweep.record import Plan, note_plan
from core.sweep.rounds import rounds
from core.sweep.variants import Variant, base_variants
from core.system.locks import locked

RESULTS, PAGE = "sweep.json", "sweep.html"


def plan_sweep(config: SweepConfig, output: Path, catalogue: Catalogue) -> list[PlannedRun]:
    """Return the runs that are known before any has begun, checked; nothing is written.

    Of a study, these are runs of the recipes without the values that it will choose.

    Raises ConfigError for every mistake in the recipes, if a run was begun with another recipe, and
    if a study needs Optuna, which is not installed.
    """
    first = next(rounds(config, lambda _: None))
    variants = base_variants(config) if config.is_study else first
    runs = plan_runs(variants, config.all_seeds, output, catalogue)
    refuse_changes(runs, catalogue)
    shared_needs(runs)
    return runs


def run_sweep(
    config: SweepConfig, output: Path, executor: Executor, catalogue: Catalogue, console: Console
) -> SweepResults:
    """Do the runs that are missing, and return what all have reached; write the page.

    Nothing that is finished is done again, so the same call goes on where a former one was killed.
    A run that fails stops no other.

    Raises, before any run begins, what `plan_sweep` raises; and LockedError if another sweep is at
    work in the folder.
    """
    names = [run.variant.name for run in plan_sweep(config, output, catalogue)]
    with locked(output):
        plan = Plan(tuple(dict.fromkeys(names)), config.all_seeds, config.threads)
        for line in note_plan(output, plan):
            console.print(line)
        sweep = _Sweep(config, output, executor, catalogue, console)
        for variants in rounds(config, sweep.goodness):
            sweep.run(variants)
        results = summarize(
            [sweep.runs_of(variant) for variant in sweep.variants],
            config.baseline or sweep.variants[0].name,
        )
        write_file(output / RESULTS, json.dumps(to_json(results), indent=1).encode())
        write_sweep_page(results, output.resolve().name, output / PAGE)
    return results


@dataclass
class _Sweep:
    """The runs of a sweep, as far as they are planned.

    failures: {name of a run, or of a variant: why it has no result}.
    """

    config: SweepConfig
    output: Path
    executor: Executor
    catalogue: Catalogue
    console: Console
    variants: list[Variant] = field(default_factory=list)
    runs: list[PlannedRun] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, variants: Sequence[Variant]) -> None:
        """Do the runs of some variants that are not finished."""
        runs = [run for variant in variants for run in self._plan(variant)]
        refuse_changes(runs, self.catalogue)
        runs.sort(key=lambda run: self.config.all_seeds.index(run.seed))
        self.variants += variants
        self.runs += runs
        missing = [run for run in runs if not run.is_finished]
        if len(missing) < len(runs):
            self.console.print(f"{len(runs) - len(missing)} of {len(runs)} runs are finished")
        for run in shared_needs(missing):
            prepare(run.recipe, self.console)
        by_name = {run.name: run for run in missing}
        jobs = [self._job(run) for run in missing]
        with closing(self.executor.run(jobs)) as outcomes:
            for number, outcome in enumerate(outcomes, 1):
                run, error = by_name[outcome.job.name], outcome.error
                if not error and not run.is_finished:
                    error = "ended without a result"
                if error:
                    self.failures[run.name] = error
                state = f"failed: {error}" if error else "finished"
                self.console.print(f"{number} of {len(jobs)}: {run.name}: {state}", soft_wrap=True)

    def _plan(self, variant: Variant) -> list[PlannedRun]:
        """Return the runs of a variant; a study may choose values that a recipe cannot have."""
        try:
            return plan_runs([variant], self.config.all_seeds, self.output, self.catalogue)
        except ConfigError as error:
            self.failures[variant.name] = error.mistakes[0]
            return []

    def _job(self, run: PlannedRun) -> Job:
        folder = run.folder.absolute()
        return Job(
            run.name, folder, command_of(run.write().absolute(), folder), self.config.threads
        )

    def goodness(self, variant: Variant) -> float | None:
        """Return how good the finished runs of a variant are on average, higher is better."""
        records = [read_run(folder) for folder in self.runs_of(variant).folders.values()]
        for metric in METRICS:
            values = [value for r in records if (value := metric.of(r)) is not None]
            if values:
                mean = fmean(values) if metric.higher_is_better else -fmean(values)
                return mean if isfinite(mean) else None
        return None

    def runs_of(self, variant: Variant) -> VariantRuns:
        """Return which runs of a variant have finished, and why others have not."""
        runs = [run for run in self.runs if run.variant == variant]
        folders = {run.seed: run.folder for run in runs if run.is_finished}
        refused = self.failures.get(variant.name)
        missing = {
            run.seed: self.failures.get(run.name, "not finished")
            for run in runs
            if run.seed not in folders
        }
        if refused:
            missing = dict.fromkeys(self.config.all_seeds, refused)
        return VariantRuns(variant.name, str(variant.recipe), variant.overrides, folders, missing)
