"""Third-party packages, installed beside Joinery's wheel in a virtual environment of their own."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from safetensors import safe_open

from core.store.store import EpisodeStore
from core.testing import Check, checks_for
from tests.strangers import HEADS, NAMES, head_and_config, package

ROOT = Path(__file__).parents[1]
RIG = ROOT / "tests" / "third_party" / "joinery-depth-force"
SMALL = {
    "regression": {"hidden_size": 32},
    "flow": {"hidden_size": 32, "steps": 2},
    "expert": {"width": 16, "steps": 2},
    "autoregressive": {"bins": 8},
}
SMALL_WORLD = """
[train]
steps = 2
batch_size = 4
accelerator = "cpu"
[environment]
name = "tabletop"
[demonstrations]
tasks = ["lift_red"]
episodes = 2
[data]
path = "lift.zarr"
window = 2
threads = 1
[action]
horizon = 2
normalization = "clip_range"
[vision_encoder]
name = "film_cnn"
image_size = 32
width = 32
channels = 8
[text_encoder]
name = "sentencepiece"
width = 24
[backbone]
name = "transformer"
width = 48
depth = 1
[action_tokens]
name = "learned"
formulation = "interleaved"
[evaluate]
episodes = 1
num_envs = 1
"""
# of each head, one of its tensors and the shape that the small recipe gives it
WEIGHTS = {
    "regression": ("mlp.0.weight", [32, 48]),
    "flow": ("network.2.weight", [32, 32]),
    "expert": ("layers.0.qkv.weight", [3 * 48, 16]),
    "autoregressive": ("embedding.weight", [8 + 2, 48]),
}
BUILT = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")


@dataclass(frozen=True)
class Installation:
    """A new virtual environment, and a working folder that holds none of the sources."""

    folder: Path
    wheel: Path
    desk: Path

    def run(self, *words: str) -> str:
        """Run a program of the environment, and return what it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
            "OMP_NUM_THREADS": "1"
        }
        program = self.folder / "bin" / words[0]
        process = subprocess.run(
            [program, *words[1:]],
            cwd=self.desk,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("third_party")
    joinery = build_wheel(copy_of_joinery(folder / "joinery"))
    heads = [build_wheel(copy(package(name), folder / name)) for name in HEADS]
    rig = build_wheel(copy(RIG, folder / "rig"))
    venv.create(folder / "venv")
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    lend_libraries(site)
    pip(
        "--python",
        folder / "venv" / "bin" / "python",
        "install",
        "--no-deps",
        "--no-index",
        joinery,
        *heads,
        rig,
    )
    (folder / "desk").mkdir()
    return Installation(folder / "venv", joinery, folder / "desk")


def copy_of_joinery(to: Path) -> Path:
    """Copy the sources of the wheel, so that building leaves the checkout clean."""
    to.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, to / name)
    for name in ("core", "plugins"):
        copy(ROOT / name, to / name)
    return to


def copy(source: Path, to: Path) -> Path:
    return Path(shutil.copytree(source, to, ignore=BUILT))


def build_wheel(source: Path) -> Path:
    pip(
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        source / "dist",
        source,
    )
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def lend_libraries(site: Path) -> None:
    """Append this environment's libraries to the new one's path: torch alone is gigabytes."""
    folders = [
        folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")
    ]
    (site / "lent.pth").write_text("".join(f"{folder}\n" for folder in folders))


def small_recipe(path: Path, head: str) -> Path:
    """Write a recipe that trains a head in the tabletop environment, on its expert's episodes."""
    path.write_text(
        f"{SMALL_WORLD}{tomli_w.dumps({'policy_head': {'name': NAMES[head], **SMALL[head]}})}",
        encoding="utf-8",
    )
    return path


def test_the_wheel_is_whole(installation: Installation) -> None:
    files = zipfile.ZipFile(installation.wheel).namelist()
    assert {"plugins/text/robot_instructions.model", "core/py.typed", "plugins/py.typed"} <= set(
        files
    )
    assert {name.split("/")[0].split("-")[0] for name in files} == {"core", "plugins", "joinery"}


def test_the_code_that_runs_is_the_wheels(installation: Installation) -> None:
    printed = installation.run(
        *("python", "-c"),
        "import core, plugins, regression_head as m; print(core, plugins, m, sep='\\n')",
    )
    assert all(str(installation.folder) in line for line in printed.splitlines())


@pytest.mark.slow
def test_third_party_heads_are_listed(installation: Installation) -> None:
    printed = installation.run("joinery", "plugins", "policy_head")
    assert (
        "regression  [regression_head, joinery-regression-head 0.3.0]  "
        "Regresses the chunk of every frame on its own." in printed
    )
    assert "hidden_size: int = 256\n          width of the hidden layer." in printed
    assert "lstm  [plugins.heads.lstm, joinery " in printed
    for name in HEADS:
        assert f"  {NAMES[name]}  [{name}_head, joinery-{name}-head " in printed


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_third_party_head_trains_and_acts_in_an_environment(
    installation: Installation, head: str
) -> None:
    recipe = small_recipe(installation.desk / f"{head}.toml", head)
    printed = installation.run("python", "-m", "core.run", recipe.name)
    assert "finished at step 2 of 2" in printed
    assert "1/1 attempts" in printed
    checkpoint = installation.desk / "runs" / head / "checkpoints" / "step_00000002"
    name, shape = WEIGHTS[head]
    with safe_open(checkpoint / "model.safetensors", "pt") as weights:
        assert weights.get_slice(f"policy_head.{name}").get_shape() == shape


@pytest.mark.slow
def test_depth_and_force_are_recorded_imported_and_shown(installation: Installation) -> None:
    shown = [
        "feature depth: uint16 (24, 24, 1), depth in mm",
        "feature force: float32 (6,), force in N",
    ]
    words = ["depth_force_press", "press.zarr", "--episodes", "2", "--workers", "1"]
    assert "2 episodes recorded" in installation.run("joinery", "collect", *words)
    assert all(line in installation.run("joinery", "show", "press.zarr") for line in shown)
    recorded = EpisodeStore(installation.desk / "press.zarr")
    (installation.desk / "rig").mkdir()
    for number in range(2):
        episode = recorded.read(number)
        arrays = {
            "rgb": episode.images["top"],
            "action": episode.actions,
            "proprio": episode.proprio,
            "instruction": episode.instruction,
            **episode.features,
        }
        np.savez(installation.desk / "rig" / f"{number}.npz", **arrays)
    printed = installation.run(
        "joinery", "import", "depth_force_npz", "rig", "rig.zarr", "--jobs", "1"
    )
    assert all(line in printed for line in shown)
    imported = EpisodeStore(installation.desk / "rig.zarr")
    for number in range(2):
        for name, array in recorded.read(number).features.items():
            np.testing.assert_array_equal(imported.read(number).features[name], array)


RIG_RECIPE = """
[train]
steps = 1_500
batch_size = 64
learning_rate = 2e-3
accelerator = "cpu"
validate_every = 500
checkpoint_every = 1_500
[environment]
name = "depth_force_press"
[demonstrations]
episodes = 150
noise = 0.3
[data]
path = "presses.zarr"
window = 1
features = ["depth", "force"]
validation_episodes = 2
threads = 1
[action]
horizon = 4
normalization = "clip_range"
[vision_encoder]
name = "depth_force"
[text_encoder]
name = "none"
[backbone]
name = "transformer"
width = 32
depth = 2
heads = 4
[action_tokens]
name = "learned"
attention = "prefix"
proprio = true
[policy_head]
name = "lstm"
layers = 1
hidden_size = 64
mlp = [64]
loss = "l1"
[evaluate]
episodes = 20
controls = ["blank_images"]
"""


@pytest.mark.slow
def test_a_policy_that_sees_depth_and_feels_force_alone_does_its_task(
    installation: Installation,
) -> None:
    """Environment, demonstrations, store, encoder and evaluation, without a change of core."""
    (installation.desk / "rig.toml").write_text(RIG_RECIPE, encoding="utf-8")
    installation.run("joinery", "run", "rig.toml")
    results = json.loads(
        (installation.desk / "runs" / "rig" / "evaluation" / "results.json").read_text()
    )
    successes = {
        condition: tasks["tasks"]["press"]["successes"]
        for condition, tasks in results["summary"].items()
    }
    assert successes["standard"] >= 17
    assert successes["blank_images"] <= 12  # without depth, the force alone says little


def checks_of_third_party_heads() -> list[Check]:
    """Return the checks that the heads' authors run, as docs/writing-a-plugin.md shows."""
    checks = {name: checks_for("policy_head", *head_and_config(name)) for name in HEADS}
    return [
        Check(f"{name}: {check}", check)
        for name, head_checks in checks.items()
        for check in head_checks
    ]


@pytest.mark.parametrize("check", checks_of_third_party_heads(), ids=str)
def test_contract(check: Check) -> None:
    check()
