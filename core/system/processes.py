"""Worker processes: how many the machine allows, and their setup."""

import os
import signal
import threading
from multiprocessing import parent_process
from pathlib import Path

# where Linux says how much memory a container may use, in its second and first version of cgroups
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Return the memory that this process may use: the machine's, or less in a container."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in MEMORY_LIMITS:
        try:
            memory = min(memory, int(file.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return memory


def set_up_worker_process() -> None:
    """Make this worker process ignore Ctrl-C, and exit when its parent process dies.

    Call this function first in a worker process.
    A terminal sends Ctrl-C to the parent and to its workers. Only the parent should react, because
    it knows what to save and which workers to stop. A parent that was killed (kill -9) cannot stop
    its workers, so each worker runs a thread that waits until the parent has ended and then exits
    the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
    os._exit(1)
