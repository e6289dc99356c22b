import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.environments.environment import Environment
from core.environments.workers import (
    EnvironmentFailed,
    EnvironmentSpec,
    Worker,
    describe,
    open_workers,
    wait_for_any,
)
from core.errors import DataError
from tests.toy_environment import Fault, ToyConfig, ToyEnvironment, toy_info

ROOT = Path(__file__).parents[3]
LONG_TIMEOUT = 60.0  # seconds: longer than any machine needs
TOY = EnvironmentSpec("toy", ToyEnvironment, ToyConfig())


def process_id(environment: Environment) -> int:
    return os.getpid()


def libraries_and_threads(environment: Environment) -> tuple[bool, set[str], int]:
    """Return whether torch is imported, the libraries' thread limits, and the number of threads."""
    np.ones((500, 500)) @ np.ones((500, 500))
    limits = {value for name, value in os.environ.items() if name.endswith("_THREADS")}
    threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").exists() else 2
    return "torch" in sys.modules, limits, threads


def one_step(environment: Environment, seed: int) -> list[float]:
    environment.reset("reach_red", seed)
    environment.step(np.array([1.0, 0.0, 1.0]))
    return environment.observe().proprio.tolist()


def long_result(environment: Environment) -> bytes:
    return bytes(10_000_000)  # more than a pipe holds


def reset_to_an_unknown_task(environment: Environment) -> None:
    environment.reset("fly", 0)


def wait_long(environment: Environment, seconds: float) -> None:
    time.sleep(seconds)


def result_that_cannot_be_pickled(environment: Environment) -> object:
    return lambda: None


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def have_ended(*processes: int) -> bool:
    """Wait for processes to end; return whether they did in time."""
    deadline = time.monotonic() + LONG_TIMEOUT
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(is_running, processes))


@pytest.fixture
def worker() -> Iterator[Worker]:
    with open_workers(TOY, 1, LONG_TIMEOUT) as (worker,):
        yield worker


def run_one_step(worker: Worker, seed: int = 0) -> list[float]:
    worker.submit(one_step, seed)
    proprio: list[float] = worker.result()
    return proprio


def test_an_environment_lives_in_a_process_of_its_own(worker: Worker) -> None:
    worker.submit(process_id)
    assert worker.result() == worker.pid != os.getpid()
    assert run_one_step(worker, 3) == one_step(ToyEnvironment(ToyConfig()), 3)


def test_the_process_has_one_thread_for_libraries_and_no_torch(worker: Worker) -> None:
    worker.submit(libraries_and_threads)
    assert worker.result() == (False, {"1"}, 2)  # the other thread waits for the parent's end


def test_an_environment_describes_itself(worker: Worker) -> None:
    worker.submit(describe)
    description = worker.result()
    assert description.info == toy_info()
    assert list(description.tasks) == ["reach_red", "reach_blue"]
    assert description.versions == {"toy": "1"}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("crash", r"died \(exit code 3\)"),
        ("raise", r"raised \(RuntimeError: the toy broke, at .*toy_environment.py:\d+\)"),
    ],
)
def test_an_environment_that_breaks_gives_a_reason_and_starts_again(
    fault: str, reason: str, tmp_path: Path
) -> None:
    config = ToyConfig(faults=(Fault(fault, seed=7, marker=str(tmp_path / "once")),))  # type: ignore[arg-type]
    with open_workers(EnvironmentSpec("toy", ToyEnvironment, config), 1, LONG_TIMEOUT) as (worker,):
        run_one_step(worker, 6)
        with pytest.raises(EnvironmentFailed, match=f"^{reason}$"):
            run_one_step(worker, 7)
        worker.restart()
        assert run_one_step(worker, 7) == one_step(ToyEnvironment(ToyConfig()), 7)


def test_a_process_that_was_killed_while_idle_has_failed(worker: Worker) -> None:
    first = worker.pid
    run_one_step(worker)
    os.kill(first, signal.SIGKILL)
    assert have_ended(first)
    with pytest.raises(EnvironmentFailed, match=r"^died \(SIGKILL\)$"):
        run_one_step(worker)
    worker.restart()
    assert worker.pid != first
    run_one_step(worker)


def test_a_process_that_is_killed_while_it_sends_a_result_has_failed(worker: Worker) -> None:
    worker.submit(long_result)
    assert worker.connection.poll(LONG_TIMEOUT)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFailed, match=r"^died \(SIGKILL\)$"):
        worker.result()
    worker.restart()
    run_one_step(worker)


def test_a_process_that_hangs_is_killed() -> None:
    worker = Worker(TOY, timeout=0.3)
    worker.submit(wait_long, 1000.0)
    with pytest.raises(EnvironmentFailed, match=r"^hung \(0.3 s\)$"):
        worker.result()
    assert have_ended(worker.pid)
    worker.timeout = LONG_TIMEOUT
    worker.restart()
    run_one_step(worker)
    worker.close()
    assert have_ended(worker.pid)


def test_a_data_error_of_the_environment_is_raised_here(worker: Worker) -> None:
    worker.submit(reset_to_an_unknown_task)
    with pytest.raises(DataError, match=r"^no task is called 'fly'; known: reach_red, reach_blue$"):
        worker.result()
    run_one_step(worker)


def test_a_result_that_cannot_be_pickled_is_a_failure(worker: Worker) -> None:
    worker.submit(result_that_cannot_be_pickled)
    with pytest.raises(EnvironmentFailed, match=r"^raised \(.*[Cc]an't pickle"):
        worker.result()
    run_one_step(worker)


def missing_library(config: ToyConfig) -> ToyEnvironment:
    raise ModuleNotFoundError("No module named 'simulator'")


def test_an_environment_that_cannot_be_built_is_a_failure() -> None:
    reason = (
        r"^raised \(ModuleNotFoundError: No module named 'simulator', at .*test_workers.py:\d+\)$"
    )
    spec = EnvironmentSpec("toy", missing_library, ToyConfig())
    with (
        open_workers(spec, 1, LONG_TIMEOUT) as (worker,),
        pytest.raises(EnvironmentFailed, match=reason),
    ):
        run_one_step(worker)


def test_a_spec_that_cannot_be_pickled_is_refused() -> None:
    with pytest.raises(DataError, match=r"^environment 'toy' cannot be built in another process"):
        Worker(
            EnvironmentSpec("toy", lambda config: ToyEnvironment(config), ToyConfig()), LONG_TIMEOUT
        )


def test_waiting_returns_the_workers_that_are_ready_or_overdue() -> None:
    with open_workers(TOY, 2, LONG_TIMEOUT) as (slow, quick):
        slow.submit(wait_long, 1000.0)
        quick.submit(process_id)
        assert wait_for_any([slow, quick]) == [quick]
        quick.result()
        slow._deadline = time.monotonic()
        assert wait_for_any([slow]) == [slow]  # overdue
    assert multiprocessing.active_children() == []


def test_workers_ignore_interrupts(worker: Worker) -> None:
    run_one_step(worker)
    os.kill(worker.pid, signal.SIGINT)
    run_one_step(worker)


PARENT = """
import sys
from tests.core.environments.test_workers import TOY, LONG_TIMEOUT, Worker, process_id, wait_long
if __name__ == "__main__":
    workers = [Worker(TOY, LONG_TIMEOUT) for _ in range(2)]
    for worker in workers:
        worker.submit(process_id)
    print(*[worker.result() for worker in workers], flush=True)
    workers[0].submit(wait_long, 1000.0)
    print("busy", flush=True)
    sys.stdin.read()
"""


def test_workers_die_with_their_parent_busy_or_not(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        processes = [int(word) for word in parent.stdout.readline().split()]
        assert parent.stdout.readline() == "busy\n"
        assert len(processes) == 2
        assert all(map(is_running, processes))
        parent.kill()
    assert have_ended(*processes)


def test_importing_the_commands_again_in_each_worker_costs_nothing() -> None:
    code = (
        "import sys, core.run, core.commands.collect; "
        "assert not {'numpy', 'torch', 'pluggy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_workers_are_imported_without_numpy() -> None:
    """The fork server imports them before a process limits the threads of numpy."""
    code = "import sys, core.environments.workers; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
