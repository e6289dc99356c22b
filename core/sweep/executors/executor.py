"""What an executor does, and which there are."""

from collections.abc import Callable, Generator, Sequence
from typing import Literal, Protocol

from core.sweep.config import SweepConfig
from core.sweep.executors.local import LocalExecutor
from core.sweep.executors.ray_cluster import RayExecutor
from core.sweep.executors.slurm import SlurmExecutor
from core.sweep.job import Job, Outcome

Name = Literal["local", "slurm", "ray"]


class Executor(Protocol):
    """Runs jobs."""

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """Run all jobs, and yield the outcome of each when it has ended.

        A job that fails stops no other. If the iterator is closed, or interrupted, the runs that
        are going on save and end, and no other begins.
        """
        ...


def make_executor(name: Name, config: SweepConfig, jobs: int | None) -> Executor:
    """Return an executor; raises ConfigError if its library is not installed.

    jobs: how many run at once, at most; None: one on this machine, and all on a cluster.
    """
    makers: dict[Name, Callable[[], Executor]] = {
        "local": lambda: LocalExecutor(jobs or 1),
        "slurm": lambda: SlurmExecutor(config.slurm, config.threads, jobs),
        "ray": lambda: RayExecutor(config.ray, config.threads, jobs),
    }
    return makers[name]()
