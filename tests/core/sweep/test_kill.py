"""kill -9, at random moments: a sweep that goes on must equal one that nobody disturbed."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.sweep.sweep import PAGE
from tests.core.sweep.test_sweep import steps_done, summary

ROOT = Path(__file__).parents[3]


class Nursery:
    """Starts sweeps as children of one warm process; see `tests.core.sweep.nursery`."""

    def __init__(self, log: Path) -> None:
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.core.sweep.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        self._number()  # it is warm

    def start(self, *words: str) -> int:
        assert self.process.stdin
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        return self._number()

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _number(self) -> int:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        assert line, "the nursery died"
        return int(line)


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    warm = Nursery(tmp_path / "errors.log")
    yield warm
    warm.close()


@pytest.mark.parametrize(
    ("rates", "kills"), [(2, 2), pytest.param(6, 10, marks=pytest.mark.slow)], ids=["4", "12"]
)
def test_kills_in_a_row_change_nothing(
    recipe: Path, tmp_path: Path, nursery: Nursery, rates: int, kills: int
) -> None:
    grid = ",".join(f"{n}e-3" for n in range(1, rates + 1))
    words = [str(recipe), "--grid", f"train.learning_rate={grid}", "--seeds", "2", "--jobs", "2"]
    whole, killed = tmp_path / "whole" / "sweep", tmp_path / "killed" / "sweep"
    for folder in (whole, killed):
        folder.mkdir(parents=True)
        (folder / "slow").write_text("0.1")
    nursery.start(*words, "--output", str(whole))
    assert nursery.wait() == 0, (tmp_path / "errors.log").read_text()
    moments, reached = random.Random(0), []
    for number in range(kills):
        child = nursery.start(*words, "--output", str(killed))
        time.sleep(moments.uniform(0.1, 0.6))
        # in turn the sweep alone, whose runs then go on, and all that belongs to it
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number % 2 else os.kill)(child, signal.SIGKILL)
        nursery.wait()
        reached.append(len(list(killed.rglob("report.html"))))
    nursery.start(*words, "--output", str(killed))
    assert nursery.wait() == 0, (tmp_path / "errors.log").read_text()
    assert reached == sorted(reached)
    assert reached[0] < 2 * rates, "the first kill came after the end: the test proves nothing"
    assert summary(killed) == summary(whole)
    assert (killed / PAGE).read_bytes() == (whole / PAGE).read_bytes()
    # no run has done a step again that was saved, and no two processes were in one folder
    for name, steps in steps_done(killed).items():
        assert list(dict.fromkeys(steps)) == list("12345"), name
        assert steps == sorted(steps), name


def test_a_sweep_that_is_stopped_lets_its_runs_save(
    recipe: Path, tmp_path: Path, nursery: Nursery
) -> None:
    output = tmp_path / "sweep"
    output.mkdir()
    (output / "slow").write_text("60")
    child = nursery.start(str(recipe), "--seeds", "1", "--output", str(output))
    while not (output / "base" / "seed_0" / "steps").exists():
        time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    assert nursery.wait() != 0
    log = (output / "base" / "seed_0" / "output.log").read_text()
    assert "saved" in log
    (output / "slow").unlink()
    nursery.start(str(recipe), "--seeds", "1", "--output", str(output))
    assert nursery.wait() == 0, (tmp_path / "errors.log").read_text()


def toy_sweep(recipe: Path, output: Path, rates: int) -> list[str]:
    """Return the command that sweeps real, tiny runs in the toy environment."""
    grid = ",".join(["1e-2", "1e-3", "1e-4", "1e-5", "3e-3", "3e-4"][:rates])
    program = [sys.executable, "-W", "ignore", "-m", "tests.toy_command", "sweep", str(recipe)]
    words = ["--grid", f"train.learning_rate={grid}", "--seeds", "2", "--jobs", "2"]
    return [*program, *words, "--output", str(output)]


@pytest.mark.slow
@pytest.mark.parametrize(("rates", "kills"), [(2, 3), (6, 10)], ids=["4", "12"])
def test_kills_of_a_sweep_of_real_runs(
    toy_recipe: Path, tmp_path: Path, rates: int, kills: int
) -> None:
    whole, killed = tmp_path / "whole" / "sweep", tmp_path / "killed" / "sweep"
    began = time.monotonic()
    subprocess.run(toy_sweep(toy_recipe, whole, rates), cwd=ROOT, check=True)
    duration, moments = time.monotonic() - began, random.Random(0)
    for number in range(kills):
        process = subprocess.Popen(
            toy_sweep(toy_recipe, killed, rates), cwd=ROOT, start_new_session=True
        )
        time.sleep(moments.uniform(0.3, 1.2) * duration / kills)
        (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(toy_sweep(toy_recipe, killed, rates), cwd=ROOT, check=True)
    assert summary(killed) == summary(whole)
    for run in sorted(whole.glob("*/seed_*")):
        other = killed / run.relative_to(whole)
        last = "checkpoints/step_00000004/model.safetensors"
        assert (other / last).read_bytes() == (run / last).read_bytes(), run
