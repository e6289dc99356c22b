"""Setup of worker processes."""

import os
import signal
import threading
from multiprocessing import parent_process


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
