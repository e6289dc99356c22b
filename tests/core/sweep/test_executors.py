"""The same runs on this machine, by submitit and on a Ray cluster."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.sweep.config import RayConfig, SlurmConfig, SweepConfig
from core.sweep.executors.executor import Executor, make_executor
from core.sweep.executors.local import LocalExecutor
from core.sweep.executors.ray_cluster import RayExecutor
from core.sweep.executors.slurm import SlurmExecutor
from core.sweep.job import LOG, Job
from tests.core.sweep.test_kill import ROOT
from tests.core.sweep.test_sweep import summary

WAITS = "import time; time.sleep(60)"


def jobs_of(folder: Path, codes: Sequence[str]) -> list[Job]:
    jobs = []
    for number, code in enumerate(codes):
        (folder / "variant" / str(number)).mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-c", code)
        jobs.append(Job(f"job {number}", folder / "variant" / str(number), command, 1))
    return jobs


def check(executor: Executor, folder: Path) -> None:
    """One job fails, and the others are done all the same."""
    codes = ["print('one')", "raise SystemExit('two is wrong')", "print('three')"]
    outcomes = {o.job.name: o.error for o in executor.run(jobs_of(folder, codes))}
    assert outcomes.keys() == {"job 0", "job 1", "job 2"}
    assert outcomes["job 0"] == outcomes["job 2"] == ""
    assert outcomes["job 1"].startswith("two is wrong (")
    assert (folder / "variant" / "2" / LOG).read_text() == "three\n"


def test_on_this_machine(tmp_path: Path) -> None:
    check(LocalExecutor(2), tmp_path)


def test_runs_end_when_a_sweep_is_interrupted(tmp_path: Path) -> None:
    outcomes = LocalExecutor(2).run(jobs_of(tmp_path, ["pass", WAITS, WAITS]))
    assert next(outcomes).job.name == "job 0"
    outcomes.close()
    # their logs are free again
    later = LocalExecutor(3).run(jobs_of(tmp_path, ["pass"] * 3))
    assert [outcome.error for outcome in later] == ["", "", ""]


def test_gpus_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.5)"
    list(LocalExecutor(4).run(jobs_of(tmp_path, [code] * 4)))
    logs = [(tmp_path / "variant" / str(number) / LOG).read_text().strip() for number in range(4)]
    assert sorted(logs) == ["0", "0", "1", "1"]


def test_by_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs submitit: pip install -e '.[slurm]'")
    check(SlurmExecutor(SlurmConfig(cluster="local", minutes=2), 1, None), tmp_path)


@pytest.fixture
def ray() -> None:
    pytest.importorskip("ray", reason="needs ray: pip install -e '.[ray]'")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_a_ray_cluster(ray: None, tmp_path: Path) -> None:
    check(RayExecutor(RayConfig(), 1, 2), tmp_path)


@pytest.mark.slow
def test_real_runs_give_the_same_numbers_on_two_workers_of_ray(
    ray: None, toy_recipe: Path, tmp_path: Path
) -> None:
    words = ["--grid", "train.learning_rate=1e-2,1e-4", "--seeds", "2"]
    outputs = [tmp_path / place / "sweep" for place in ("local", "ray")]
    for place, output in zip(("local", "ray"), outputs, strict=True):
        program = [sys.executable, "-W", "ignore", "-m", "tests.toy_command", "sweep"]
        options = [*words, "--on", place, "--jobs", "2", "--output", str(output)]
        subprocess.run([*program, str(toy_recipe), *options], cwd=ROOT, check=True)
    here, there = map(summary, outputs)
    assert len(here["variants"]) == 2
    assert here == there


@pytest.mark.parametrize(("name", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_library_that_is_missing_is_told_before_any_run(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config = SweepConfig((Path("a.toml"),))
    with pytest.raises(ConfigError, match=rf"{module} cannot be imported .*joinery\[{name}\]"):
        make_executor(name, config, None)  # type: ignore[arg-type]
