"""Runs jobs as tasks of a Ray cluster."""

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from core.sweep.config import RayConfig
from core.sweep.job import Job, Outcome, run_job
from core.system.optional_imports import import_optional


@dataclass(frozen=True)
class RayExecutor:
    """Runs jobs on a Ray cluster, or on one of its own on this machine.

    The folders of the sweep, of its recipes and of the data must be at the same paths everywhere.

    threads: of each run.
    count: how many run at once, at most; None: as many as the cluster has cores for.
    """

    config: RayConfig
    threads: int
    count: int | None

    def __post_init__(self) -> None:
        import_optional("ray", "ray")

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """Run all jobs; see `Executor`."""
        ray: Any = import_optional("ray", "ray")
        cpus = self.config.cpus or self.threads
        own = {"num_cpus": cpus * self.count} if self.count and not self.config.address else {}
        # on a cluster of its own, runs give way to others no more than they do without Ray
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(
            address=self.config.address or "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            **own,
        )
        # a run that was lost with its machine has failed, and goes on when the sweep does
        task = ray.remote(num_cpus=cpus, num_gpus=self.config.gpus, max_retries=0)(run_job)
        waiting, running = list(jobs), dict[Any, Job]()
        try:
            while waiting or running:
                while waiting and len(running) < (self.count or len(jobs)):
                    job = waiting.pop(0)
                    running[task.remote(job)] = job
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                job = running.pop(done)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayError as error:
                    yield Outcome(job, f"lost by Ray: {str(error).strip().splitlines()[0]}")
        finally:
            for reference in running:
                ray.cancel(reference, force=False)
            if running:
                ray.wait(list(running), num_returns=len(running))
            ray.shutdown()
