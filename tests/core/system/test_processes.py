import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from core.system import processes
from core.system.processes import usable_memory

PROGRAM = """
import os, sys, time
from multiprocessing import get_context
from core.system.processes import set_up_worker_process

def work():
    set_up_worker_process()
    print("worker", os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    worker = get_context("spawn").Process(target=work)
    worker.start()
    worker.join()
"""


@pytest.fixture
def parent(tmp_path: Path) -> subprocess.Popen[str]:
    """A process with one worker, which has printed its process id."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    )


def worker_of(parent: subprocess.Popen[str]) -> int:
    assert parent.stdout is not None
    return int(parent.stdout.readline().split()[1])


def is_running(process: int) -> bool:
    with suppress(FileNotFoundError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"  # a zombie has ended, though nobody has asked for its exit code yet
    return False


def ends_within(process: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(process)


def test_memory_is_what_a_container_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    file = tmp_path / "memory.max"
    monkeypatch.setattr(processes, "MEMORY_LIMITS", (tmp_path / "nothing", file))
    assert usable_memory() == machine
    for content, expected in (("max", machine), (str(2**62), machine), ("3000000000", 3 * 10**9)):
        file.write_text(content)
        assert usable_memory() == min(expected, machine)


def test_cores_are_those_that_the_process_may_use() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from core.system.processes import core_count; print(core_count())"
    )
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("only Linux binds processes to cores")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"


def test_a_worker_ends_with_a_parent_that_is_killed(parent: subprocess.Popen[str]) -> None:
    worker = worker_of(parent)
    assert is_running(worker)
    parent.kill()
    parent.communicate()
    assert ends_within(worker, seconds=20)


def test_a_worker_leaves_an_interrupt_to_its_parent(parent: subprocess.Popen[str]) -> None:
    worker = worker_of(parent)
    os.kill(worker, signal.SIGINT)
    time.sleep(0.3)
    assert is_running(worker)
    parent.kill()
    parent.communicate()
    assert ends_within(worker, seconds=20)
