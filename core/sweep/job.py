"""One run of a sweep as a process of its own: the public command, on any machine.

Each executor runs jobs by what is here, so a run gives the same numbers wherever it was run.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.system.links import open_to_append
from core.system.locks import try_lock

# what the runs of a sweep have said, in the run's folder
LOG = "output.log"
# stands in the log before what a run says that is tried again
AGAIN = "\n---- the sweep tries this run again ----\n"
# the program `joinery`, as a module
PROGRAM = "core.cli"
# seconds between looks at a process of this machine, and at one elsewhere
POLL, WAIT = 0.1, 2.0


@dataclass(frozen=True)
class Job:
    """A run to be trained and evaluated.

    name: of the run, in messages.
    folder: of the run.
    command: the program and its arguments, without --resume.
    threads: with which it computes.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    threads: int


@dataclass(frozen=True)
class Outcome:
    """How a job ended: error is a line that says why it failed, or empty."""

    job: Job
    error: str = ""


def command_of(recipe: Path, folder: Path) -> tuple[str, ...]:
    """Return the command that trains and evaluates a recipe in a folder."""
    # `python -m` looks for modules in the current folder, and the program `joinery` does not
    safe = () if {"", str(Path.cwd())} & set(sys.path) else ("-P",)
    program = (sys.executable, *safe, "-m", PROGRAM)
    return (*program, "run", str(recipe), "--output", str(folder))


def run_job(job: Job) -> Outcome:
    """Run a job in a new process, and wait for it; if this is interrupted, the run saves and ends.

    If another process is at work in the folder, the job begins when that one has ended.
    """
    while (process := start(job)) is None:
        time.sleep(WAIT)
    try:
        process.wait()
    except BaseException:
        stop([process])
        raise
    return outcome(job, process.returncode)


def start(job: Job, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes] | None:
    """Start the process of a job; it goes on from the newest checkpoint, if there is a run.

    The process holds a lock on its log. Return None if another one does: that of a sweep that was
    killed, and has left it running.

    more: environment variables of this process.
    """
    resume = ("--resume",) if (job.folder / "recipe.toml").exists() else ()
    threads = {name: str(job.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **threads, **(more or {})}
    if "SLURM_NTASKS" in environment:
        # or else Fabric would take the processes of the job for those of one training
        environment["SLURM_JOB_NAME"] = "bash"
    with open_to_append(job.folder / LOG) as log:
        if not try_lock(log):
            return None
        if os.fstat(log.fileno()).st_size > 0:
            log.write(AGAIN.encode())
            log.flush()
        return subprocess.Popen(
            [*job.command, *resume],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Let processes save and end, and wait until they have."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def outcome(job: Job, code: int) -> Outcome:
    """Return how a process has ended: with exit code 0, or why not."""
    return Outcome(job, "" if code == 0 else f"{_reason(job.folder / LOG, code)}")


def _reason(log: Path, code: int) -> str:
    """Return the line in which a process has said why it ended with a code above zero.

    Below zero, the code is that of a signal.
    """
    if code < 0:
        name = signal.Signals(-code).name
        advice = "; is there enough memory?" if name == "SIGKILL" else ""
        return f"ended by {name}{advice}"
    text = log.read_text(encoding="utf-8", errors="replace").rpartition(AGAIN)[2]
    said = [line for line in text.splitlines() if line.strip()]
    mistakes = [line for line in said[-50:] if line.startswith("error: ")]
    line = (mistakes or said or [""])[-1].removeprefix("error: ").strip()
    return f"{line[:500] or f'ended with code {code}'} ({log})"
