"""A lock that one process holds on a folder while it works there."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from core.errors import JoineryError
from core.system.links import open_to_append

# what file systems answer that have no locks
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class LockedError(JoineryError):
    """Another process works in a folder; the message names that process."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock FOLDER/.lock inside the `with` block; make the folder if there is none.

    The operating system releases the lock when the process ends, even after kill -9. The file
    stays: removing it would let two processes hold locks on two files of the same name.

    The lock (flock) holds among the processes of one machine, and among the machines of a network
    file system that passes locks on, as NFS does. On a file system without locks, nothing is
    locked.

    Raises LockedError if another process holds the lock, and OSError if FOLDER/.lock is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open_to_append(folder / ".lock") as file:
        if not try_lock(file):
            file.seek(0)
            holder = file.read().decode(errors="replace").strip()[:100] or "another process"
            raise LockedError(
                f"{folder}: {holder} is at work there: wait for it, stop it, or name another folder"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file, and return True; or False if another process holds the lock.

    A process that inherits the file, as its standard output for example, holds the lock, too.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
