"""What strangers hand over is opened, shown, verified, repaired, imported, exported and reported.

Whatever they did to it: nothing outside changes, no code runs, memory stays small, and a mistake is
one line. tests/hostile.py makes the changes, and watches.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import KINDS

ROOT = Path(__file__).parents[1]
# how many seeds are tried of each kind, in every run of the tests and in a long one
FEW = {"store": 60, "run": 24}
FEW_OF_A_FORMAT, MANY = 10, 60


def wrong(box: Path, kind: str, first: int, count: int) -> list[str]:
    """Try some seeds in a process of its own, whose memory is limited."""
    words = ["-W", "ignore", "-m", "tests.hostile", str(box), kind, str(first), str(count)]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines: list[str] = json.loads(done.stdout.splitlines()[-1])
    return lines


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_outside_no_code_runs_and_a_mistake_is_one_line(
    kind: str, tmp_path: Path
) -> None:
    assert wrong(tmp_path, kind, 0, FEW.get(kind, FEW_OF_A_FORMAT)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_more_seeds(kind: str, tmp_path: Path) -> None:
    assert wrong(tmp_path, kind, 1000, MANY) == []
