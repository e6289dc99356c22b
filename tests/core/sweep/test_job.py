"""A run as a process: how it begins, goes on, ends and fails."""

import sys
from pathlib import Path

import pytest

from core.sweep.job import AGAIN, LOG, Job, command_of, run_job, start


def job_of(folder: Path, code: str, threads: int = 1) -> Job:
    folder.mkdir(exist_ok=True)
    return Job("a run", folder, (sys.executable, "-c", code), threads)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", ""),
        ("print('error: a: wrong\\n'); raise SystemExit(2)", "a: wrong (LOG)"),
        ("import sys; sys.exit('odd')", "odd (LOG)"),
        ("1 / 0", "ZeroDivisionError: division by zero (LOG)"),
        ("raise SystemExit(3)", "ended with code 3 (LOG)"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL; is there enough memory?"),
    ],
)
def test_a_failure_is_one_line(tmp_path: Path, code: str, reason: str) -> None:
    assert run_job(job_of(tmp_path, code)).error == reason.replace("LOG", str(tmp_path / LOG))


def test_each_run_has_its_threads_whatever_the_machine(tmp_path: Path) -> None:
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    run_job(job_of(tmp_path, code, threads=3))
    assert (tmp_path / LOG).read_text() == "3 3\n"


def test_a_run_that_is_there_is_resumed(tmp_path: Path) -> None:
    job = job_of(tmp_path, "import sys; print(sys.argv[1:])")
    run_job(job)
    (tmp_path / "recipe.toml").touch()
    run_job(job)
    assert (tmp_path / LOG).read_text() == f"[]\n{AGAIN}['--resume']\n"


def test_a_failure_is_not_that_of_a_former_try(tmp_path: Path) -> None:
    run_job(job_of(tmp_path, "raise SystemExit('error: no space left')"))
    assert run_job(job_of(tmp_path, "1 / 0")).error.startswith("ZeroDivisionError")


def test_nobody_begins_where_another_process_is_at_work(tmp_path: Path) -> None:
    first = start(job_of(tmp_path, "import time; time.sleep(60)"))
    assert first is not None
    assert start(job_of(tmp_path, "pass")) is None
    first.kill()
    first.wait()
    assert run_job(job_of(tmp_path, "pass")).error == ""


def test_the_command_is_the_public_one(tmp_path: Path) -> None:
    command = command_of(tmp_path / "planned.toml", tmp_path)
    module = command.index("-m")
    assert command[module:] == (
        *("-m", "core.cli", "run", str(tmp_path / "planned.toml")),
        *("--output", str(tmp_path)),
    )


def test_a_job_of_slurm_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    run_job(job_of(tmp_path, "import os; print(os.environ['SLURM_JOB_NAME'])"))
    assert (tmp_path / LOG).read_text() == "bash\n"
