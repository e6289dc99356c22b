"""Imports beside a torchvision whose compiled operators do not load."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.system.torchvision import import_library

# a torchvision that fails as the real one does: at the first operator that it registers code for
BROKEN = """
import torch
from torchvision import helper

@torch.library.register_fake("torchvision::{operator}")
def fake(dets, scores, iou_threshold):
    return dets
"""


def run(folder: Path, operator: str, script: str) -> subprocess.CompletedProcess[str]:
    package = folder / "torchvision"
    package.mkdir()
    (package / "helper.py").touch()
    (package / "__init__.py").write_text(BROKEN.format(operator=operator))
    (folder / "library.py").write_text("import torchvision\nname = torchvision.__name__\n")
    path = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(Path(__file__).parents[3])!r}]\n"
    return subprocess.run([sys.executable, "-c", path + script], capture_output=True, text=True)


def test_a_library_is_imported_though_the_operators_are_missing(tmp_path: Path) -> None:
    script = """
from core.system.torchvision import import_library
print(import_library("library").name, import_library("library").name)
"""
    done = run(tmp_path, "nms", script)
    assert done.stdout == "torchvision torchvision\n", done.stderr


def test_without_help_the_same_import_fails(tmp_path: Path) -> None:
    done = run(tmp_path, "nms", "import library")
    assert "operator torchvision::nms does not exist" in done.stderr


def test_a_missing_library_names_its_extra() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'joinery\[lora\]'"):
        import_library("no_such_library", extra="lora", distribution="joinery")
