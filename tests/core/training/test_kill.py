"""kill -9 ten times in a row, at random moments: the resumed run must equal an undisturbed one."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.weights.checkpoint import checkpoints
from tests.core.training.runs import metrics, needs_muon

KILLS = 10
STEPS = 40
TURNS = "[{steps=3,parts=['vision_encoder','backbone']},{steps=2,parts=['policy_head']}]"
# settings under which a run has more state between its steps
AVERAGED = ("optimizer.name=muon", "train.ema=0.9")
CARRIED = ("data.sampling=episodes", "policy_head.memory=episode")
# no stage names these parts, and their weights stay random
RANDOM = ("text_encoder.pretrained=false", "action_tokens.pretrained=false")
EVERYTHING = (*AVERAGED, *CARRIED, "train.accumulation=2", f"train.stages={TURNS}", *RANDOM)

# Imports everything once and then forks each attempt, so that an attempt's seconds are spent on
# training.
NURSERY = """
import os, sys, torch
torch.set_num_threads(1)
from core import run
from core.registry.catalogue import load_plugins
from core.training import train
from core import import_library
load_plugins(); import_library("timm")
print(0, flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(run.main(line.split()))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Starts runs as children of one warm process."""

    def __init__(self, log: Path) -> None:
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", NURSERY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._line()  # it is warm

    def start(self, *arguments: str) -> int:
        self.process.stdin.write(" ".join(arguments) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        return int(self._line())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _line(self) -> str:
        while not (line := self.process.stdout.readline().strip()).lstrip("-").isdigit():
            assert self.process.poll() is None, "the nursery died"
        return line


@pytest.fixture
def nursery(tmp_path):
    warm = Nursery(tmp_path / "errors.log")
    yield warm
    warm.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [(), *(pytest.param(settings, marks=needs_muon) for settings in (AVERAGED, EVERYTHING))],
    ids=["plain", "averaged", "everything"],
)
def test_ten_kills_in_a_row_change_nothing(recipe_file, tmp_path, nursery, more):
    settings = [f"train.steps={STEPS}", "train.checkpoint_every=3", "train.validate_every=10"]
    settings += more
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    nursery.start(str(recipe_file), *settings, "--output", str(whole))
    assert nursery.wait() == 0, (tmp_path / "errors.log").read_text()
    duration = time.monotonic() - began

    moments, reached = random.Random(0), []
    while len(reached) < KILLS:
        resume = ["--resume"] if (killed / "recipe.toml").exists() else []
        child = nursery.start(str(recipe_file), *settings, "--output", str(killed), *resume)
        time.sleep(moments.uniform(0.1, 0.5) * duration)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if (status := nursery.wait()) == 0:  # it ended before the killer came: take its end back
            shutil.rmtree(checkpoints(killed)[-1].folder)
            continue
        assert status == -signal.SIGKILL, (tmp_path / "errors.log").read_text()
        reached.append(checkpoints(killed)[-1].step if checkpoints(killed) else 0)
    assert max(reached) > 0, "no life was long enough to save anything: the test proves nothing"
    nursery.start(str(recipe_file), *settings, "--output", str(killed), "--resume")
    assert nursery.wait() == 0, (tmp_path / "errors.log").read_text()
    assert metrics(killed) == metrics(whole)
    last = [checkpoints(folder)[-1].folder for folder in (whole, killed)]
    names = [path.name for path in last[0].glob("*.safetensors")]
    assert ("training.safetensors" in names) == bool(more)
    assert ("carried.safetensors" in names) == (more == EVERYTHING)
    for name in names:
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()
