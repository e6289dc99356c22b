import importlib.util
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from core.environments.environment import EVALUATION_SEEDS
from core.errors import DataError
from core.registry.catalogue import load_plugins
from plugins.environments.calvin import Calvin, CalvinConfig
from plugins.environments.calvin.chains import read_chains, scene_state
from tests import calvin_stand_in
from tests.calvin_stand_in import PlayTableSimEnv, StandInCamera
from tests.core.testing.failing import failures

STILL, OPEN, CLOSED = np.zeros(6, np.float32), 1.0, -1.0


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    names = sorted({task for chain in read_chains() for task in chain.tasks})
    calvin_stand_in.install(monkeypatch, tmp_path, names)
    return tmp_path


@pytest.fixture
def calvin(checkout: Path) -> Calvin:
    return Calvin(CalvinConfig())


def world(environment: Calvin) -> PlayTableSimEnv:
    return environment._env


def act(environment: Calvin, gripper: float, **moves: float) -> bool:
    action = np.array([*STILL, gripper], np.float32)
    for axis, value in moves.items():
        action[("x", "y", "z", "roll", "pitch", "yaw").index(axis)] = value
    return environment.step(action)


def pull_drawer(environment: Calvin, steps: int) -> list[bool]:
    return [act(environment, CLOSED, y=-0.9) for _ in range(steps)]  # 18 mm each


@pytest.mark.usefixtures("checkout")
def test_contract() -> None:
    """No process is started, as it would lack the stand-in, whose cameras see all scenes alike."""
    assert set(failures("environment", Calvin, CalvinConfig())) == {"seeds_decide"}


# ------------------------------------------------------------------------------------- the protocol


def test_evaluation_seeds_count_the_chains(calvin: Calvin) -> None:
    for number in (0, 1, 999):
        assert calvin.begin_chain(EVALUATION_SEEDS + number) == read_chains()[number].tasks
        np.testing.assert_array_equal(
            world(calvin).scene_obs, scene_state(read_chains()[number].start)
        )
    assert calvin.begin_chain(EVALUATION_SEEDS + 1000) == read_chains()[0].tasks


def test_tasks_and_phrasings_are_those_of_the_annotations(calvin: Calvin) -> None:
    assert len(calvin.tasks) == 34
    task = calvin.tasks["open_drawer"]
    assert task.max_steps == 360
    assert task.instruction("demonstration", 1) == "open_drawer two"
    assert {task.instruction("evaluation", seed) for seed in range(5)} == {"now open_drawer"}


def test_conventions(calvin: Calvin) -> None:
    action = calvin.info.action
    assert (action.mode, action.frame, action.rotation, action.rate) == (
        "delta",
        "world",
        "euler_xyz",
        30.0,
    )
    assert action.scale[:6] == (0.02,) * 3 + (0.05,) * 3
    (gripper,) = action.grippers
    assert (gripper.dimension, gripper.kind, gripper.closed, gripper.open) == (
        6,
        "binary",
        CLOSED,
        OPEN,
    )
    assert {name: (c.height, c.width) for name, c in calvin.info.cameras.items()} == {
        "static": (200, 200),
        "wrist": (84, 84),
    }
    assert calvin.versions == {"pybullet": "3.2.7", "calvin_env": calvin_stand_in.COMMIT}


# ----------------------------------------------------------------------------------------- episodes


def test_a_task_is_done_when_the_oracle_sees_the_change_since_it_was_asked_for(
    calvin: Calvin,
) -> None:
    calvin.reset("open_drawer", EVALUATION_SEEDS)
    assert pull_drawer(calvin, 7) == [False] * 6 + [True]  # more than 120 mm
    # the drawer is open by 126 mm and ends at 240, but the task asks for 120 more
    calvin.proceed("open_drawer")
    assert not any(pull_drawer(calvin, 7))
    calvin.proceed("close_drawer")
    assert not any(pull_drawer(calvin, 1))
    assert any(act(calvin, CLOSED, y=1) for _ in range(9))


def test_only_the_task_asked_for_counts(calvin: Calvin) -> None:
    calvin.reset("open_drawer", EVALUATION_SEEDS)
    calvin.proceed("lift_red_block_table")
    assert not any(pull_drawer(calvin, 9))


def test_single_tasks_begin_where_a_chain_with_them_begins(calvin: Calvin) -> None:
    starts = [
        scene_state(chain.start) for chain in read_chains() if chain.tasks[0] == "turn_on_led"
    ]
    arranged = []
    for seed in range(len(starts)):
        calvin.reset("turn_on_led", seed)
        arranged.append(world(calvin).scene_obs.copy())
    np.testing.assert_array_equal(arranged, starts)
    assert all(scene[5] == 0 for scene in arranged)


def test_a_task_that_no_chain_begins_with_has_no_scene(calvin: Calvin) -> None:
    with pytest.raises(DataError, match="no chain of CALVIN's begins with 'stack_block'"):
        calvin.reset("stack_block", 0)


def test_an_unknown_task_is_refused(calvin: Calvin) -> None:
    with pytest.raises(DataError, match="'open_drawr'; did you mean 'open_drawer'"):
        calvin.proceed("open_drawr")
    with pytest.raises(DataError, match="'open_drawr'; did you mean 'open_drawer'"):
        calvin.reset("open_drawr", 0)


def test_nothing_is_done_before_a_task_is_asked_for(calvin: Calvin) -> None:
    with pytest.raises(DataError, match="calvin has no task yet"):
        act(calvin, OPEN)


@pytest.mark.parametrize("action", [np.full(7, np.nan), np.zeros(6), np.zeros(8)])
def test_an_invalid_action_is_refused(calvin: Calvin, action: np.ndarray) -> None:
    calvin.reset("open_drawer", 0)
    with pytest.raises(DataError, match="an action"):
        calvin.step(action)


@pytest.mark.parametrize(
    ("command", "done"), [(0.01, OPEN), (7.0, OPEN), (0.0, CLOSED), (-0.2, CLOSED)]
)
def test_the_gripper_is_thresholded_at_zero(calvin: Calvin, command: float, done: float) -> None:
    calvin.reset("open_drawer", 0)
    act(calvin, command)
    assert world(calvin).robot.gripper_action == done


def test_actions_move_the_gripper_and_stay_as_they_are(calvin: Calvin) -> None:
    calvin.reset("open_drawer", 0)
    before = calvin.observe().proprio
    action = np.array([1, -0.5, 0, 0, 0, 1, OPEN], np.float32)
    calvin.step(action)
    np.testing.assert_allclose(
        calvin.observe().proprio[:6] - before[:6], [0.02, -0.01, 0, 0, 0, 0.05], atol=1e-6
    )
    np.testing.assert_array_equal(action, np.array([1, -0.5, 0, 0, 0, 1, OPEN], np.float32))


def test_an_episode_does_not_depend_on_those_before(calvin: Calvin) -> None:
    def episode() -> list[np.ndarray]:
        calvin.reset("open_drawer", 5)
        return [
            calvin.observe().proprio,
            *(calvin.observe().proprio for _ in pull_drawer(calvin, 3)),
        ]

    first = episode()
    calvin.reset("turn_on_led", 2)
    pull_drawer(calvin, 20)
    np.testing.assert_array_equal(episode(), first)


def test_observations_are_as_the_metadata_says(calvin: Calvin) -> None:
    calvin.begin_chain(EVALUATION_SEEDS)
    observation = calvin.observe()
    assert {name: image.shape for name, image in observation.images.items()} == {
        "static": (200, 200, 3),
        "wrist": (84, 84, 3),
    }
    assert all(
        image.dtype == np.uint8 and image.flags.c_contiguous
        for image in observation.images.values()
    )
    assert observation.proprio.dtype == np.float32
    proprio = dict(zip(calvin.info.proprio, observation.proprio, strict=True))
    assert proprio["tcp_y"] == pytest.approx(-0.2313129)
    assert (proprio["gripper_opening"], proprio["joint_7"]) == (pytest.approx(0.08), 6)


def test_cameras_draw_only_when_looked_through(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Calvin(CalvinConfig())
    drawn: list[str] = []
    draw = StandInCamera.render
    monkeypatch.setattr(
        StandInCamera, "render", lambda camera: (drawn.append(camera.name), draw(camera))[1]
    )
    environment.reset("open_drawer", 0)
    pull_drawer(environment, 3)
    assert drawn == []
    environment.observe()
    assert drawn == ["static", "gripper"]


# -------------------------------------------------------------------------------------- building it


def test_the_scene_is_drawn_on_the_cpu_by_default(checkout: Path) -> None:
    assert world(Calvin(CalvinConfig())).use_egl is False
    assert world(Calvin(CalvinConfig(use_egl=True))).use_egl is True


def test_the_scene_is_calvin_envs_own_or_the_datasets(checkout: Path) -> None:
    assert world(Calvin(CalvinConfig())).configs == (
        {"filename": "panda_longer_finger"},
        {"place": "D"},
    )
    validation = checkout / "task_ABC_D" / "validation"
    calvin_stand_in.write_yaml(
        validation / ".hydra" / "merged_config.yaml", calvin_stand_in.scene("B")
    )
    environment = Calvin(CalvinConfig(dataset=validation))
    assert world(environment).configs == ({"filename": "panda"}, {"place": "B"})
    assert {*environment._cameras} == {"static", "gripper"}


def test_a_folder_that_is_no_split_is_named(checkout: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere/.hydra/merged_config.yaml: not found; docs/calvin.md"
    ):
        Calvin(CalvinConfig(dataset=Path("nowhere")))


def test_calvin_env_alone_is_not_enough(checkout: Path) -> None:
    (checkout / "calvin_models/conf/annotations/new_playtable_validation.yaml").unlink()
    with pytest.raises(
        DataError, match=r"new_playtable_validation.yaml: not found; docs/calvin.md"
    ):
        Calvin(CalvinConfig())


def test_a_copy_that_is_no_clone_is_refused(checkout: Path) -> None:
    (checkout / "calvin_env" / ".git").rmdir()
    with pytest.raises(
        DataError, match=r"calvin_env: no git clone, which calvin_env must be; see docs/calvin.md"
    ):
        Calvin(CalvinConfig())


def test_without_calvin_env_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calvin_env", None)
    with pytest.raises(
        DataError,
        match=r"^environment 'calvin': .*calvin_env.*; install calvin_env as docs/calvin.md",
    ):
        Calvin(CalvinConfig())


def test_closing_disconnects_once(calvin: Calvin) -> None:
    calvin.close()
    assert (world(calvin).closed, world(calvin).ownsPhysicsClient) == (True, False)


def test_it_is_registered_with_documented_keys() -> None:
    component = load_plugins()["environment"].get("calvin")
    assert component is not None
    assert component.build is Calvin
    page = (Path(__file__).parents[2] / "docs" / "calvin.md").read_text(encoding="utf-8")
    for key in component.parameters:
        assert re.search(
            rf"^\| `{key.name}` \| .* \| {re.escape(key.meaning)} \|$", page, re.MULTILINE
        )


# ------------------------------------------------------------------------------------- the real one


@pytest.mark.simulator
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(
    importlib.util.find_spec("calvin_env") is None, reason="needs calvin_env, see docs/calvin.md"
)
def test_the_real_calvin_env() -> None:
    real_environment = import_module("calvin_env.envs.play_table_env").PlayTableSimEnv
    for name in (
        "__init__",
        "seed",
        "load",
        "reset",
        "step",
        "get_obs",
        "get_state_obs",
        "get_info",
        "close",
    ):
        assert [*inspect.signature(getattr(real_environment, name)).parameters] == [
            *inspect.signature(getattr(PlayTableSimEnv, name)).parameters
        ]
    environment = Calvin(CalvinConfig())
    episodes = []
    for seed in (0, 1, 0):
        environment.reset("open_drawer", seed)
        pull_drawer(environment, 10)
        episodes.append(environment.observe())
    done = close_a_drawer(environment)
    environment.close()
    first, other, again = episodes
    np.testing.assert_array_equal(first.proprio, again.proprio)
    np.testing.assert_array_equal(first.images["static"], again.images["static"])
    assert (first.images["static"] != other.images["static"]).any()
    assert first.images["wrist"].std() > 10
    assert done


def close_a_drawer(environment: Calvin) -> bool:
    """Down before the drawer, then against it."""
    environment.reset("close_drawer", EVALUATION_SEEDS)
    target = environment.observe().proprio[:3]
    for goal, steps in (
        ((0.1, -0.62, 0.55), 40),
        ((0.1, -0.66, 0.38), 30),
        ((0.1, -0.25, 0.38), 60),
    ):
        for _ in range(steps):
            move = np.clip((np.array(goal) - target) / 0.02, -1, 1)
            target = target + 0.02 * move
            if environment.step(np.array([*move, 0, 0, 0, CLOSED])):
                return True
    return False
