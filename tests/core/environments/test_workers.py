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
PATIENCE = 60.0  # seconds: longer than any machine needs
TOY = EnvironmentSpec("toy", ToyEnvironment, ToyConfig())


def pid(environment: Environment) -> int:
    return os.getpid()


def facts(environment: Environment) -> tuple[bool, set[str], int]:
    """Whether torch is there, what limits the libraries' threads, and how many threads there are
    after some work.
    """
    np.ones((500, 500)) @ np.ones((500, 500))
    limits = {value for name, value in os.environ.items() if name.endswith("_THREADS")}
    threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").exists() else 2
    return "torch" in sys.modules, limits, threads


def one_step(environment: Environment, seed: int) -> list[float]:
    environment.reset("reach_red", seed)
    environment.step(np.array([1.0, 0.0, 1.0]))
    return environment.observe().proprio.tolist()


def a_long_answer(environment: Environment) -> bytes:
    return bytes(10_000_000)  # more than a pipe holds


def ask_for_an_unknown_task(environment: Environment) -> None:
    environment.reset("fly", 0)


def wait_long(environment: Environment, seconds: float) -> None:
    time.sleep(seconds)


def nothing_that_can_be_sent(environment: Environment) -> object:
    return lambda: None


def exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def vanish(*processes: int) -> bool:
    """Wait for processes to be gone."""
    deadline = time.monotonic() + PATIENCE
    while any(map(exists, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(exists, processes))


@pytest.fixture
def worker() -> Iterator[Worker]:
    with open_workers(TOY, 1, PATIENCE) as (worker,):
        yield worker


def ask(worker: Worker, seed: int = 0) -> list[float]:
    worker.submit(one_step, seed)
    answer: list[float] = worker.result()
    return answer


def test_an_environment_lives_in_a_process_of_its_own(worker: Worker) -> None:
    worker.submit(pid)
    assert worker.result() == worker.pid != os.getpid()
    assert ask(worker, 3) == one_step(ToyEnvironment(ToyConfig()), 3)


def test_the_process_has_one_thread_for_mathematics_and_no_torch(worker: Worker) -> None:
    worker.submit(facts)
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
        ("raise", r"raised \(RuntimeError: the toy broke, at toy_environment.py:\d+\)"),
    ],
)
def test_an_environment_that_breaks_gives_a_reason_and_starts_again(
    fault: str, reason: str, tmp_path: Path
) -> None:
    config = ToyConfig(faults=(Fault(fault, seed=7, marker=str(tmp_path / "once")),))  # type: ignore[arg-type]
    with open_workers(EnvironmentSpec("toy", ToyEnvironment, config), 1, PATIENCE) as (worker,):
        ask(worker, 6)
        with pytest.raises(EnvironmentFailed, match=f"^{reason}$"):
            ask(worker, 7)
        worker.restart()
        assert ask(worker, 7) == one_step(ToyEnvironment(ToyConfig()), 7)


def test_a_killed_process_is_noticed_also_between_two_jobs(worker: Worker) -> None:
    first = worker.pid
    ask(worker)
    os.kill(first, signal.SIGKILL)
    assert vanish(first)
    with pytest.raises(EnvironmentFailed, match=r"^died \(SIGKILL\)$"):
        ask(worker)
    worker.restart()
    assert worker.pid != first
    ask(worker)


def test_a_process_that_is_killed_in_the_middle_of_its_answer(worker: Worker) -> None:
    worker.submit(a_long_answer)
    assert worker.connection.poll(PATIENCE)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFailed, match=r"^died \(SIGKILL\)$"):
        worker.result()
    worker.restart()
    ask(worker)


def test_a_process_that_hangs_is_killed() -> None:
    worker = Worker(TOY, timeout=0.3)
    worker.submit(wait_long, 1000.0)
    with pytest.raises(EnvironmentFailed, match=r"^hung \(0.3 s\)$"):
        worker.result()
    assert vanish(worker.pid)
    worker.timeout = PATIENCE
    worker.restart()
    ask(worker)
    worker.close()
    assert vanish(worker.pid)


def test_a_mistake_of_the_caller_is_a_data_error(worker: Worker) -> None:
    worker.submit(ask_for_an_unknown_task)
    with pytest.raises(DataError, match=r"^no task is called 'fly'; known: reach_red, reach_blue$"):
        worker.result()
    ask(worker)


def test_an_answer_that_cannot_be_sent(worker: Worker) -> None:
    worker.submit(nothing_that_can_be_sent)
    with pytest.raises(EnvironmentFailed, match=r"^raised \(.*[Cc]an't pickle"):
        worker.result()
    ask(worker)


def missing_library(config: ToyConfig) -> ToyEnvironment:
    raise ModuleNotFoundError("No module named 'simulator'")


def test_an_environment_that_cannot_be_built() -> None:
    reason = (
        r"^raised \(ModuleNotFoundError: No module named 'simulator', at test_workers.py:\d+\)$"
    )
    spec = EnvironmentSpec("toy", missing_library, ToyConfig())
    with (
        open_workers(spec, 1, PATIENCE) as (worker,),
        pytest.raises(EnvironmentFailed, match=reason),
    ):
        ask(worker)


def test_an_environment_that_no_other_process_can_build() -> None:
    with pytest.raises(DataError, match=r"^environment 'toy' cannot be built in another process"):
        Worker(EnvironmentSpec("toy", lambda config: ToyEnvironment(config), ToyConfig()), PATIENCE)


def test_the_first_of_several_results() -> None:
    with open_workers(TOY, 2, PATIENCE) as (slow, quick):
        slow.submit(wait_long, 1000.0)
        quick.submit(pid)
        assert wait_for_any([slow, quick]) == [quick]
        quick.result()
        slow._deadline = time.monotonic()
        assert wait_for_any([slow]) == [slow]  # overdue
    assert multiprocessing.active_children() == []


def test_interrupts_are_the_parents_affair(worker: Worker) -> None:
    ask(worker)
    os.kill(worker.pid, signal.SIGINT)
    ask(worker)


PARENT = """
import sys
from tests.core.environments.test_workers import TOY, PATIENCE, Worker, pid, wait_long
if __name__ == "__main__":
    workers = [Worker(TOY, PATIENCE) for _ in range(2)]
    for worker in workers:
        worker.submit(pid)
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
        assert all(map(exists, processes))
        parent.kill()
    assert vanish(*processes)


def test_the_commands_can_be_imported_again_in_each_process_at_no_cost() -> None:
    code = "import sys, core.run, core.commands.collect; assert not {'numpy', 'torch', 'pluggy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
