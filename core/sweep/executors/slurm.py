"""Runs jobs on a SLURM cluster, through submitit."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from core.sweep.config import SlurmConfig
from core.sweep.job import WAIT, Job, Outcome, run_job
from core.system.optional_imports import import_optional

# where submitit keeps its scripts and logs, beside the runs
FOLDER = ".submitit"


@dataclass(frozen=True)
class SlurmExecutor:
    """Submits each run as a job of its own.

    threads: of each run.
    count: how many run or wait at SLURM at once, at most; None: all.
    """

    config: SlurmConfig
    threads: int
    count: int | None

    def __post_init__(self) -> None:
        import_optional("submitit", "slurm")

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """Run all jobs; see `Executor`."""
        waiting, running = list(jobs), list[tuple[Job, Any]]()
        try:
            while waiting or running:
                while waiting and len(running) < (self.count or len(jobs)):
                    job = waiting.pop(0)
                    running.append((job, self._submit(job)))
                time.sleep(WAIT)
                for pair in [pair for pair in running if pair[1].done()]:
                    running.remove(pair)
                    yield _outcome(*pair)
        finally:
            for _, submitted in running:
                submitted.cancel()

    def _submit(self, job: Job) -> Any:
        submitit: Any = import_optional("submitit", "slurm")
        config = self.config
        folder = job.folder.parent.parent / FOLDER
        executor = submitit.AutoExecutor(folder=folder, cluster=config.cluster)
        options = {
            "slurm_partition": config.partition,
            "mem_gb": config.memory_gb,
            "slurm_additional_parameters": dict(config.additional) or None,
        }
        executor.update_parameters(
            name="joinery",
            timeout_min=config.minutes,
            cpus_per_task=config.cpus or self.threads,
            gpus_per_node=config.gpus,
            **{name: value for name, value in options.items() if value is not None},
        )
        return executor.submit(run_job, job)


def _outcome(job: Job, submitted: Any) -> Outcome:
    """Return the outcome of a job that has ended, also if SLURM has ended it."""
    error = submitted.exception()
    if error is None:
        outcome: Outcome = submitted.result()
        return outcome
    lines = [line for line in str(error).splitlines() if line.strip()]
    return Outcome(job, f"job {submitted.job_id} failed: {(lines or [type(error).__name__])[0]}")
