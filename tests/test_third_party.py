"""Strangers' packages beside Joinery's wheel, in a virtual environment of their own: what plugin authors will do."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from safetensors import safe_open

from core.data.store import EpisodeStore
from core.testing import Check, checks_for

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "third_party" / "joinery-mlp-head"
RIG = ROOT / "tests" / "third_party" / "joinery-depth-force"
BUILT = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")


@dataclass(frozen=True)
class Installation:
    """A fresh virtual environment, and a folder to work in that holds none of the sources."""

    folder: Path
    wheel: Path
    desk: Path

    def run(self, *words: str) -> str:
        """Run a program of the environment; return what it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
        program = self.folder / "bin" / words[0]
        done = subprocess.run(
            [program, *words[1:]], cwd=self.desk, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("third_party")
    ours, theirs = build_wheel(copy_of_joinery(folder / "joinery")), build_wheel(copy(PACKAGE, folder / "stranger"))
    rig = build_wheel(copy(RIG, folder / "rig"))
    venv.create(folder / "venv")
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    lend_libraries(site)
    pip("--python", folder / "venv" / "bin" / "python", "install", "--no-deps", "--no-index", ours, theirs, rig)
    (folder / "desk").mkdir()
    return Installation(folder / "venv", ours, folder / "desk")


def copy_of_joinery(to: Path) -> Path:
    """The sources of the wheel, so that building leaves the checkout clean."""
    to.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, to / name)
    for name in ("core", "plugins"):
        copy(ROOT / name, to / name)
    return to


def copy(source: Path, to: Path) -> Path:
    return Path(shutil.copytree(source, to, ignore=BUILT))


def build_wheel(source: Path) -> Path:
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", source / "dist", source)
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def lend_libraries(site: Path) -> None:
    """Put the libraries of this environment at the end of the fresh one's path: torch alone is gigabytes."""
    lent = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    (site / "lent.pth").write_text("".join(f"{folder}\n" for folder in lent))


def small_recipe(path: Path) -> Path:
    """The shipped recipe with the stranger's head, and small enough for a test."""
    recipe = tomllib.loads((ROOT / "recipes" / "metaworld_offline.toml").read_text(encoding="utf-8"))
    recipe["train"] |= {"steps": 2, "batch_size": 2, "accelerator": "cpu"}
    recipe["data"] |= {"path": str(ROOT / "recipes" / recipe["data"]["path"]), "window": 2, "threads": 1}
    recipe["vision_encoder"] = {"name": "timm_vit", "image_size": 32, "depth": 1}
    recipe["backbone"] = {"name": "transformer", "width": 48, "depth": 1}
    recipe["policy_head"] = {"name": "mlp", "hidden_size": 32}
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    return path


def test_the_wheel_is_whole(installation: Installation) -> None:
    files = zipfile.ZipFile(installation.wheel).namelist()
    assert {"plugins/text/robot_instructions.model", "core/py.typed", "plugins/py.typed"} <= set(files)
    assert {name.split("/")[0].split("-")[0] for name in files} == {"core", "plugins", "joinery"}


def test_the_code_that_runs_is_the_wheels(installation: Installation) -> None:
    printed = installation.run(
        "python", "-c", "import core, plugins, mlp_head as m; print(core, plugins, m, sep='\\n')"
    )
    assert all(str(installation.folder) in line for line in printed.splitlines())


@pytest.mark.slow
def test_the_strangers_head_is_listed(installation: Installation) -> None:
    printed = installation.run("joinery", "plugins", "policy_head")
    assert "mlp  [mlp_head, joinery-mlp-head 0.3.0]  Regresses the chunk of every frame on its own." in printed
    assert "hidden_size: int = 256\n          width of the hidden layer." in printed
    assert "lstm  [plugins.heads.lstm, joinery " in printed


@pytest.mark.slow
def test_the_strangers_head_trains(installation: Installation) -> None:
    recipe = small_recipe(installation.desk / "mlp.toml")
    printed = installation.run("python", "-m", "core.run", recipe.name)
    assert "finished at step 2 of 2" in printed
    checkpoint = installation.desk / "runs" / "mlp" / "checkpoints" / "step_00000002"
    with safe_open(checkpoint / "model.safetensors", "pt") as weights:
        assert weights.get_slice("policy_head.mlp.0.weight").get_shape() == [32, 48]


@pytest.mark.slow
def test_depth_and_force_are_recorded_imported_and_shown(installation: Installation) -> None:
    shown = ["feature depth: uint16 (24, 24, 1), depth in mm", "feature force: float32 (6,), force in N"]
    words = ["depth_force_press", "press.zarr", "--episodes", "2", "--workers", "1"]
    assert "2 episodes recorded" in installation.run("joinery", "collect", *words)
    assert all(line in installation.run("joinery", "show", "press.zarr") for line in shown)
    recorded = EpisodeStore(installation.desk / "press.zarr")
    (installation.desk / "rig").mkdir()
    for number in range(2):
        one = recorded.read(number)
        arrays = {"action": one.actions, "proprio": one.proprio, "instruction": one.instruction, **one.features}
        np.savez(installation.desk / "rig" / f"{number}.npz", rgb=one.images["top"], **arrays)
    printed = installation.run("joinery", "import", "depth_force_npz", "rig", "rig.zarr", "--jobs", "1")
    assert all(line in printed for line in shown)
    imported = EpisodeStore(installation.desk / "rig.zarr")
    for number in range(2):
        for name, array in recorded.read(number).features.items():
            np.testing.assert_array_equal(imported.read(number).features[name], array)


def checks_of_the_strangers_head() -> list[Check]:
    """What the plugin's author runs, as docs/writing-a-plugin.md shows it."""
    spec = importlib.util.spec_from_file_location("mlp_head", PACKAGE / "mlp_head.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return checks_for("policy_head", module.MLPHead, module.MLPHeadConfig())


@pytest.mark.parametrize("check", checks_of_the_strangers_head(), ids=str)
def test_contract(check: Check) -> None:
    check()
