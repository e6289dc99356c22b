"""What every process that works for another does first."""

import os
import signal
import threading
from multiprocessing import parent_process


def serve_the_parent() -> None:
    """Leave Ctrl-C, which reaches the whole group, to the parent, and end when it has died without
    a word (kill -9).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
    os._exit(1)
