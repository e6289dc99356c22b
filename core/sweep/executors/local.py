"""Runs jobs on this machine, several processes at once."""

import os
import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from core.sweep.job import POLL, Job, Outcome, outcome, start, stop


@dataclass(frozen=True)
class LocalExecutor:
    """Runs at most `count` jobs at once; with several GPUs, they take turns."""

    count: int

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """Run all jobs; see `Executor`."""
        gpus = _gpu_count() if self.count > 1 else 0
        waiting, places = list(jobs), list(range(self.count))
        running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
        try:
            while waiting or running:
                for job in list(waiting) if places else ():
                    more = {"CUDA_VISIBLE_DEVICES": str(places[0] % gpus)} if gpus > 1 else {}
                    # a job whose folder is busy waits, and others come before it
                    if places and (process := start(job, more)):
                        running[places.pop(0)] = job, process
                        waiting.remove(job)
                time.sleep(POLL)
                for place, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[place]
                        places.append(place)
                        yield outcome(job, process.returncode)
        finally:
            stop([process for _, process in running.values()])


def _gpu_count() -> int:
    """Return the number of GPUs; 0 if CUDA_VISIBLE_DEVICES chooses among them already."""
    import torch

    return 0 if "CUDA_VISIBLE_DEVICES" in os.environ else torch.cuda.device_count()
