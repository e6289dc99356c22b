import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from core.commands.collect import main
from core.demonstrations import collect as collecting, recording
from core.demonstrations.collect import Summary, TaskSummary
from core.demonstrations.expert import demonstrate
from core.demonstrations.schedule import Report, TaskRecord
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
    progress: Report = lambda _: None,
) -> Summary:
    return collecting.collect(spec, out, tasks, episodes, noise, workers, progress)


def contents(path: Path) -> list[tuple[object, ...]]:
    """Everything that can be read of a store, in its order."""
    store = EpisodeStore(path)
    found = []
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
        found.append(
            (store.episode_id(e), store.task_name(e), store.instruction(e), *numbers, *images)
        )
    return found


def ids(path: Path) -> list[str]:
    store = EpisodeStore(path)
    return [store.episode_id(e) for e in range(len(store))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """Eight demonstrations of each task, in which every third seed failed, by one worker."""
    path = tmp_path_factory.mktemp("collected") / "toy.zarr"
    return path, collect(toy(fails_every=3), path, episodes=8)


# -------------------------------------------------------------------------------- what is collected


def test_successes_alone_are_kept_the_tasks_in_turns(undisturbed: tuple[Path, Summary]) -> None:
    path, summary = undisturbed
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


def test_an_episode_is_what_the_expert_did(undisturbed: tuple[Path, Summary]) -> None:
    path, _ = undisturbed
    expected = demonstrate(ToyEnvironment(ToyConfig(fails_every=3)), "reach_blue", 4, NOISE)
    assert expected is not None
    found = next(content for content in contents(path) if content[0] == "reach_blue/4")
    numbers = expected.actions.tobytes(), expected.proprio.tobytes()
    assert found[1:5] == ("reach_blue", expected.instruction, *numbers)


def test_the_store_says_where_it_comes_from(undisturbed: tuple[Path, Summary]) -> None:
    origin = EpisodeStore(undisturbed[0]).info.origin
    for part in (
        "a toy made for tests",
        "environment 'toy'",
        "noise 0.2",
        '"fails_every": 3',
        "toy 1",
        "joinery",
    ):
        assert part in origin


def test_the_number_of_workers_changes_nothing(
    undisturbed: tuple[Path, Summary], tmp_path: Path
) -> None:
    collect(toy(fails_every=3), tmp_path / "a.zarr", episodes=8, workers=3)
    assert contents(tmp_path / "a.zarr") == contents(undisturbed[0])


def test_chosen_tasks_in_the_order_of_choice(tmp_path: Path) -> None:
    collect(toy(), tmp_path / "a.zarr", ["reach_blue", "reach_red", "reach_blue"], episodes=1)
    assert ids(tmp_path / "a.zarr") == ["reach_blue/0", "reach_red/0"]


def test_more_episodes_continue_the_store(
    undisturbed: tuple[Path, Summary], tmp_path: Path
) -> None:
    path = tmp_path / "a.zarr"
    first = collect(toy(fails_every=3), path, episodes=3, workers=2)
    second = collect(toy(fails_every=3), path, episodes=8, workers=2)
    assert (first.added, second.added) == (6, 10)
    assert contents(path) == contents(undisturbed[0])
    assert second.tasks == undisturbed[1].tasks


def test_a_complete_store_is_left_alone(
    undisturbed: tuple[Path, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, summary = undisturbed
    monkeypatch.setattr(recording, "attempts", None)
    for episodes in (8, 5):
        again = collect(toy(fails_every=3), path, episodes=episodes)
        assert (again.added, again.tasks) == (0, summary.tasks)


def test_progress_counts_what_is_there_and_what_comes(tmp_path: Path) -> None:
    collect(toy(), tmp_path / "a.zarr", episodes=2)
    seen: list[tuple[int, int]] = []

    def progress(records: Mapping[str, TaskRecord]) -> None:
        seen.append(
            (sum(r.kept for r in records.values()), sum(r.frames for r in records.values()))
        )

    collect(toy(), tmp_path / "a.zarr", episodes=4, progress=progress)
    assert [kept for kept, _ in seen] == [4, 5, 6, 7, 8]
    store = EpisodeStore(tmp_path / "a.zarr")
    assert [frames for _, frames in seen] == [0, *np.cumsum(store.length[4:])]


# ---------------------------------------------------------------------------------- what goes wrong


def test_a_killed_worker_costs_nothing(undisturbed: tuple[Path, Summary], tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(records: Mapping[str, TaskRecord]) -> None:
        # episodes are kept in order, so that one outcome may release several, and five need not be
        # seen
        if not killed and 5 <= sum(record.kept for record in records.values()) < 16:
            killed.append(multiprocessing.active_children()[0].pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    summary = collect(toy(fails_every=3), tmp_path / "a.zarr", episodes=8, workers=2, progress=kill)
    assert killed
    assert summary.broken == ()
    assert contents(tmp_path / "a.zarr") == contents(undisturbed[0])
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


def test_an_expert_that_always_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the expert succeeded in 0 of 50 episodes"):
        collect(toy(fails_every=1), tmp_path / "a.zarr", ["reach_red"], workers=2)
    assert not (tmp_path / "a.zarr").exists()


def test_what_was_recorded_before_an_error_is_kept(tmp_path: Path) -> None:
    def give_up(records: Mapping[str, TaskRecord]) -> None:
        if sum(record.kept for record in records.values()) == 3:
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
            r"environment 'toy' cannot be built: it raised \(ModuleNotFoundError: No module named 'simulator'",
        ),
    ],
)
def test_an_environment_that_cannot_demonstrate(
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
            r"holds episodes of another origin: .*noise 0.2' there, .*noise 0.3' here; choose another path$",
        ),
        (
            {"delay": 0.001},
            0.2,
            r"another origin: .*\"delay\": 0.0}' there, .*\"delay\": 0.001}' here",
        ),
        ({"cameras": 2}, 0.2, r"cannot append, the store disagrees: cameras"),
    ],
)
def test_a_store_of_something_else(
    undisturbed: tuple[Path, Summary], settings: dict[str, object], noise: float, message: str
) -> None:
    path, _ = undisturbed
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
    recording.LEAST_PART = 3
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
            found = contents(path)
            assert found == whole[: len(found)]
            lengths.append(len(found))
    assert len({0, *lengths, len(whole)}) > 3, (
        "hardly a kill fell between two commits: the test proves nothing"
    )
    process = start(script, path)
    process.communicate()
    assert process.returncode == 0
    assert contents(path) == whole


# -------------------------------------------------------------------------------------- the command


@pytest.fixture
def toy_is_installed() -> None:
    install_toy()


@pytest.mark.usefixtures("toy_is_installed")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.zarr"
    words = [
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
    assert main(words) == 0
    shown = capsys.readouterr()
    table = [line.split() for line in shown.out.splitlines()[:2]]
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
    assert main(words) == 0
    assert "0 episodes recorded; 4 episodes" in capsys.readouterr().out


@pytest.mark.usefixtures("toy_is_installed")
@pytest.mark.parametrize(
    ("words", "code", "message"),
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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert main([words[0], str(tmp_path / "a.zarr"), *words[1:]]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--episodes", "0"],
        ["--episodes", "many"],
        ["--noise", "-1"],
        ["--noise", "nan"],
        ["--workers", "0"],
    ],
)
def test_numbers_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["toy", str(tmp_path / "a.zarr"), *words])
    assert f"argument {words[0]}: " in capsys.readouterr().err
