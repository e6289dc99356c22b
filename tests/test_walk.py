"""docs/walk.md: every block runs, in the order of the page, in one folder."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "walk.md"
BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_walk_runs_from_its_first_block_to_its_last(tmp_path: Path) -> None:
    for library in ("transformers", "peft"):
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    command = tmp_path / "bin" / "joinery"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m core.cli "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    folder = tmp_path / "work"
    folder.mkdir()
    for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "toml":
            name = code.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(code)
        elif not code.startswith("pip install"):
            if "import transformers" in code:  # where torchvision does not fit torch
                code = f"from core import import_library; import_library('transformers')\n{code}"
            start = [sys.executable, "-c"] if language == "python" else ["bash", "-ec"]
            done = subprocess.run(
                [*start, code], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
