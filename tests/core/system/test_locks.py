"""One process works in a folder; a killed one leaves nothing that blocks the next."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from core.system import locks
from core.system.locks import LockedError, locked

HOLDER = """
import sys, time
from pathlib import Path
from core.system.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path/run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_is_locked_against_another_process_until_that_is_killed(tmp_path, holder):
    with pytest.raises(LockedError, match=f"run: process {holder.pid} on .* is at work there"):
        locked(tmp_path / "run").__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "run"):
        pass


def test_a_lock_is_free_again_after_the_block(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    with locked(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / ".lock").read_text()


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    with locked(tmp_path / "run"):
        pass
