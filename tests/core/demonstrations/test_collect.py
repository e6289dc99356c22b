import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from core.commands.collect import main
from core.demonstrations import collect as collecting, recording
from core.demonstrations.collect import Summary, TaskSummary, recorded_versions
from core.demonstrations.expert import demonstrate
from core.demonstrations.schedule import ProgressCallback, TaskProgress
from core.environments.environment import Environment
from core.environments.workers import EnvironmentSpec
from core.errors import DataError
from core.store.store import EpisodeStore
from tests.toy_command import install_toy
from tests.toy_environment import Fault, ToyConfig, ToyEnvironment

ROOT = Path(__file__).parents[3]
NOISE = 0.2


def toy(**settings: object) -> EnvironmentSpec:
    return EnvironmentSpec("toy", ToyEnvironment, ToyConfig(**settings))  # type: ignore[arg-type]


def collect(
    spec: EnvironmentSpec,
    out: Path,
    tasks: Sequence[str] = (),
    episodes: int = 20,
    noise: float = NOISE,
    workers: int = 1,
    progress: ProgressCallback = lambda _: None,
) -> Summary:
    return collecting.collect(spec, out, tasks, episodes, noise, workers, progress)


def contents(path: Path) -> list[tuple[object, ...]]:
    """Return everything that can be read from a store, episode by episode."""
    store = EpisodeStore(path)
    episodes = []
    for e in range(len(store)):
        length = int(store.length[e])
        frames = {
            name: np.zeros((length, c.height, c.width, 3), np.uint8)
            for name, c in store.info.cameras.items()
        }
        for camera, out in frames.items():
            store.read_frames(camera, e, 0, length, out)
        numbers = store.actions(e, 0, length).tobytes(), store.proprio(e, 0, length).tobytes()
        images = tuple(out.tobytes() for out in frames.values())
        episodes.append(
            (store.episode_id(e), store.task_name(e), store.instruction(e), *numbers, *images)
        )
    return episodes


def ids(path: Path) -> list[str]:
    store = EpisodeStore(path)
    return [store.episode_id(e) for e in range(len(store))]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A store of eight demonstrations of each task by one worker; every third seed failed."""
    path = tmp_path_factory.mktemp("collected") / "toy.zarr"
    return path, collect(toy(fails_every=3), path, episodes=8)


# ---------------------------------------------------------------------------- episodes in the store


def test_only_successes_are_kept_and_the_tasks_take_turns(reference: tuple[Path, Summary]) -> None:
    path, summary = reference
    kept = [1, 2, 4, 5, 7, 8, 10, 11]
    assert ids(path) == [f"{task}/{seed}" for seed in kept for task in ("reach_red", "reach_blue")]
    lengths = dict(zip(ids(path), EpisodeStore(path).length.tolist(), strict=True))
    frames = {
        task: sum(n for name, n in lengths.items() if name.startswith(task))
        for task in summary.tasks
    }
    assert summary.tasks == {
        task: TaskSummary(8, 4, frames[task]) for task in ("reach_red", "reach_blue")
    }
    assert (summary.added, summary.broken) == (16, ())
    assert summary.bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_an_episode_is_what_the_expert_did(reference: tuple[Path, Summary]) -> None:
    path, _ = reference
    expected = demonstrate(ToyEnvironment(ToyConfig(fails_every=3)), "reach_blue", 4, NOISE)
    assert expected is not None
    stored = next(content for content in contents(path) if content[0] == "reach_blue/4")
    numbers = expected.actions.tobytes(), expected.proprio.tobytes()
    assert stored[1:5] == ("reach_blue", expected.instruction, *numbers)


def test_the_store_says_where_it_comes_from(reference: tuple[Path, Summary]) -> None:
    origin = EpisodeStore(reference[0]).info.origin
    for part in (
        "a toy made for tests",
        "environment 'toy'",
        "noise 0.2",
        '"fails_every": 3',
        "toy 1",
        "joinery",
    ):
        assert part in origin
    assert recorded_versions(origin) == {"joinery": metadata.version("joinery"), "toy": "1"}
    assert recorded_versions("a robot, CC BY 4.0") == {}


def test_the_number_of_workers_changes_nothing(
    reference: tuple[Path, Summary], tmp_path: Path
) -> None:
    collect(toy(fails_every=3), tmp_path / "a.zarr", episodes=8, workers=3)
    assert contents(tmp_path / "a.zarr") == contents(reference[0])


def test_chosen_tasks_in_the_order_of_choice(tmp_path: Path) -> None:
    collect(toy(), tmp_path / "a.zarr", ["reach_blue", "reach_red", "reach_blue"], episodes=1)
    assert ids(tmp_path / "a.zarr") == ["reach_blue/0", "reach_red/0"]


def test_more_episodes_continue_the_store(reference: tuple[Path, Summary], tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    first = collect(toy(fails_every=3), path, episodes=3, workers=2)
    second = collect(toy(fails_every=3), path, episodes=8, workers=2)
    assert (first.added, second.added) == (6, 10)
    assert contents(path) == contents(reference[0])
    assert second.tasks == reference[1].tasks


def test_a_complete_store_is_left_alone(
    reference: tuple[Path, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, summary = reference
    monkeypatch.setattr(recording, "run_attempts", None)
    for episodes in (8, 5):
        again = collect(toy(fails_every=3), path, episodes=episodes)
        assert (again.added, again.tasks) == (0, summary.tasks)


def test_progress_counts_stored_and_new_episodes(tmp_path: Path) -> None:
    collect(toy(), tmp_path / "a.zarr", episodes=2)
    reports: list[tuple[int, int]] = []

    def progress(tasks: Mapping[str, TaskProgress]) -> None:
        kept = sum(task.kept for task in tasks.values())
        reports.append((kept, sum(task.frames for task in tasks.values())))

    collect(toy(), tmp_path / "a.zarr", episodes=4, progress=progress)
    assert [kept for kept, _ in reports] == [4, 5, 6, 7, 8]
    store = EpisodeStore(tmp_path / "a.zarr")
    assert [frames for _, frames in reports] == [0, *np.cumsum(store.length[4:])]


# ----------------------------------------------------------------------------------------- failures


def test_a_killed_worker_costs_nothing(reference: tuple[Path, Summary], tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(tasks: Mapping[str, TaskProgress]) -> None:
        # Episodes are kept in order, so that one outcome may settle several: the number of kept
        # episodes may jump over 5.
        if not killed and 5 <= sum(task.kept for task in tasks.values()) < 16:
            killed.append(multiprocessing.active_children()[0].pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    summary = collect(toy(fails_every=3), tmp_path / "a.zarr", episodes=8, workers=2, progress=kill)
    assert killed
    assert summary.broken == ()
    assert contents(tmp_path / "a.zarr") == contents(reference[0])
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("fault", ["crash", "raise"])
def test_an_environment_that_breaks_once_costs_nothing(fault: str, tmp_path: Path) -> None:
    spec = toy(faults=(Fault(fault, seed=1, step=1, marker=str(tmp_path / "once")),))  # type: ignore[arg-type]
    summary = collect(spec, tmp_path / "a.zarr", episodes=3)
    assert (tmp_path / "once").exists()
    assert summary.broken == ()
    assert {task.failed for task in summary.tasks.values()} == {0}


def test_an_episode_that_always_breaks_the_environment_is_named(tmp_path: Path) -> None:
    spec = toy(faults=(Fault("crash", seed=1),))
    summary = collect(spec, tmp_path / "a.zarr", ["reach_red"], episodes=3, workers=2)
    assert summary.broken == ("reach_red/1: died (exit code 3)",)
    assert summary.tasks["reach_red"].failed == 1
    assert ids(tmp_path / "a.zarr") == ["reach_red/0", "reach_red/2", "reach_red/3"]


@pytest.mark.slow
def test_an_episode_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "BUILD_SECONDS", 4.0)
    monkeypatch.setattr(collecting, "STEP_SECONDS", 0.0)
    spec = toy(faults=(Fault("hang", seed=1),))
    summary = collect(spec, tmp_path / "a.zarr", ["reach_red"], episodes=2)
    assert summary.broken == ("reach_red/1: hung (4 s)",)


def test_an_expert_that_always_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the expert succeeded in 0 of 50 episodes"):
        collect(toy(fails_every=1), tmp_path / "a.zarr", ["reach_red"], workers=2)
    assert not (tmp_path / "a.zarr").exists()


def test_episodes_recorded_before_an_error_are_kept(tmp_path: Path) -> None:
    def give_up(tasks: Mapping[str, TaskProgress]) -> None:
        if sum(task.kept for task in tasks.values()) == 3:
            raise DataError("enough")

    with pytest.raises(DataError, match="enough"):
        collect(toy(), tmp_path / "a.zarr", episodes=50, progress=give_up)
    assert ids(tmp_path / "a.zarr") == ["reach_red/0", "reach_blue/0", "reach_red/1"]


class NoExpert(ToyEnvironment):
    def expert(self) -> np.ndarray:
        return Environment.expert(self)


def no_library(config: ToyConfig) -> ToyEnvironment:
    raise ModuleNotFoundError("No module named 'simulator'")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (NoExpert, "NoExpert has no expert that demonstrates its tasks; import demonstrations"),
        (
            no_library,
            r"environment 'toy' cannot be built: it raised "
            r"\(ModuleNotFoundError: No module named 'simulator'",
        ),
    ],
)
def test_an_environment_that_cannot_demonstrate_is_an_error(
    build: type[ToyEnvironment], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        collect(EnvironmentSpec("toy", build, ToyConfig()), tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("settings", "noise", "message"),
    [
        (
            {},
            0.3,
            r"holds episodes of another origin: .*noise 0.2' there, .*noise 0.3' here; "
            r"choose another path$",
        ),
        (
            {"delay": 0.001},
            0.2,
            r"another origin: .*\"delay\": 0.0,.*' there, .*\"delay\": 0.001,.*' here",
        ),
        ({"cameras": 2}, 0.2, r"cannot append, the store disagrees: cameras"),
    ],
)
def test_a_store_of_another_origin_or_convention_is_refused(
    reference: tuple[Path, Summary], settings: dict[str, object], noise: float, message: str
) -> None:
    path, _ = reference
    with pytest.raises(DataError, match=message):
        collect(toy(fails_every=3, **settings), path, episodes=9, noise=noise)
    assert len(ids(path)) == 16


# ------------------------------------------------------------------------------------------ kill -9

COLLECT = """
import sys
from pathlib import Path
from core.demonstrations import collect
from core.demonstrations import recording
from core.environments.workers import EnvironmentSpec
from tests.toy_environment import ToyConfig, ToyEnvironment
if __name__ == "__main__":
    recording.MIN_EPISODES_PER_COMMIT = 3
    print("ready", flush=True)
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(fails_every=3, delay=0.01))
    collect.collect(spec, Path(sys.argv[1]), (), 20, 0.2, 2)
"""


def start(script: Path, store: Path) -> subprocess.Popen[str]:
    script.write_text(COLLECT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script, store], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def commits(store: Path) -> int:
    return len(list(store.glob("commits/[0-9]*.json")))


@pytest.mark.slow
def test_killed_collectors_leave_a_store_that_is_continued(tmp_path: Path) -> None:
    path, script, moments = tmp_path / "a.zarr", tmp_path / "collect.py", random.Random(1)
    collect(toy(fails_every=3, delay=0.01), tmp_path / "whole.zarr", episodes=20, workers=2)
    whole, lengths = contents(tmp_path / "whole.zarr"), []
    for kill in range(4):
        process, last = start(script, path), commits(path) + moments.randrange(4)
        while commits(path) < last and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.1))
        process.send_signal(signal.SIGINT if kill == 3 else signal.SIGKILL)
        process.communicate()
        if path.exists():
            episodes = contents(path)
            assert episodes == whole[: len(episodes)]
            lengths.append(len(episodes))
    assert len({0, *lengths, len(whole)}) > 3, (
        "hardly any process was killed between two commits: the test proves nothing"
    )
    process = start(script, path)
    process.communicate()
    assert process.returncode == 0
    assert contents(path) == whole


class Ignorant(ToyEnvironment):
    """Ignores its seed."""

    def _arrange(self, kind: int, seed: int) -> None:
        super()._arrange(kind, int(np.random.default_rng().integers(1_000_000)))


def test_an_environment_that_ignores_its_seed_is_named(tmp_path: Path) -> None:
    spec = EnvironmentSpec("toy", Ignorant, ToyConfig())
    summary = collect(spec, tmp_path / "a.zarr", ["reach_red"])
    (line,) = summary.warnings
    assert line.startswith(
        "environment 'toy': reset('reach_red', 0) gave another scene when it was called again: "
        "image 'front' differs by up to "
    )


class Robot(ToyEnvironment):
    replayable = False


def test_an_attempt_of_a_robot_is_not_made_again(tmp_path: Path) -> None:
    fault = Fault("crash", seed=1, step=1, marker=str(tmp_path / "once"))
    spec = EnvironmentSpec("toy", Robot, ToyConfig(faults=(fault,)))
    summary = collect(spec, tmp_path / "a.zarr", ["reach_red"])
    assert summary.broken == ("reach_red/1: died (exit code 3)",)
    assert "reach_red/1" not in ids(tmp_path / "a.zarr")


# -------------------------------------------------------------------------------------- the command


@pytest.fixture
def toy_is_installed() -> None:
    install_toy()


@pytest.mark.usefixtures("toy_is_installed")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.zarr"
    arguments = [
        "toy",
        "--tasks",
        "reach_blue",
        "--episodes",
        "4",
        "--noise",
        "0.2",
        "--workers",
        "1",
        str(out),
        "fails_every=2",
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    table = [line.split() for line in shown.out.splitlines() if line.strip(" ─")][:2]
    mean = EpisodeStore(out).frame_count / 4
    assert table == [
        ["task", "kept", "failed", "mean", "length"],
        ["reach_blue", "4", "4", f"{mean:.1f}"],
    ]
    assert (
        f"{out}: 4 episodes recorded; 4 episodes, {EpisodeStore(out).frame_count} frames, "
        in shown.out
    )
    assert "4/4 demonstrations  50.0% successful" in shown.err
    assert ids(out) == [f"reach_blue/{seed}" for seed in (1, 3, 5, 7)]
    assert main(arguments) == 0
    assert "0 episodes recorded; 4 episodes" in capsys.readouterr().out


@pytest.mark.usefixtures("toy_is_installed")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["toi"], 2, "error: environment: no environment is called 'toi'; did you mean 'toy'?"),
        (["toy", "camera=2"], 2, "error: toy.camera: unknown key; did you mean 'cameras'?"),
        (["toy", "cameras=3"], 2, "error: toy.cameras: "),
        (["toy", "cameras"], 2, "error: cameras: expected key=value"),
        (
            ["toy", "--tasks", "reach_rad,fly"],
            1,
            "error: no task is called 'reach_rad'; did you mean 'reach_red'?\nerror: ",
        ),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    assert main([arguments[0], str(tmp_path / "a.zarr"), *arguments[1:]]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--episodes", "0"],
        ["--episodes", "many"],
        ["--noise", "-1"],
        ["--noise", "nan"],
        ["--workers", "0"],
    ],
)
def test_numbers_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["toy", str(tmp_path / "a.zarr"), *arguments])
    assert f"argument {arguments[0]}: " in capsys.readouterr().err
