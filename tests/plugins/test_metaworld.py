import hashlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.environments.environment import EVALUATION_SEEDS
from core.errors import DataError
from plugins.environments import metaworld
from plugins.environments.metaworld import (
    CAMERA,
    CAMERA_POSITION,
    MAX_STEPS,
    TASKS,
    MetaWorld,
    MetaWorldConfig,
    read_tasks,
)

ROOT = Path(__file__).parents[2]
MT10 = [
    *("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3"),
    *(
        "drawer-close-v3",
        "button-press-topdown-v3",
        "peg-insert-side-v3",
        "window-open-v3",
        "window-close-v3",
    ),
]
UP, CLOSE, OPEN = np.eye(4)[2], np.eye(4)[3], -np.eye(4)[3]


@pytest.fixture(scope="module")
def world() -> Iterator[MetaWorld]:
    try:
        world = MetaWorld(MetaWorldConfig())
    except DataError as error:
        pytest.skip(str(error))
    yield world
    world.close()


def words(instructions: tuple[str, ...]) -> set[str]:
    return set(" ".join(instructions).split())


def placement(world: MetaWorld, task: str, seed: int) -> tuple[float, ...]:
    """Where objects and goal are at the start of an episode, beside the hand."""
    world.reset(task, seed)
    return tuple(world._current.state[4:18]) + tuple(world._current.state[36:])


def episode(world: MetaWorld, task: str, seed: int) -> str:
    """Play the expert for 40 steps; return the checksum of every state and of some images."""
    world.reset(task, seed)
    checksum = hashlib.sha256()
    for step in range(40):
        checksum.update(
            world._current.state.tobytes() + world._current.environment.data.qvel.tobytes()
        )
        if step % 10 == 0:
            checksum.update(world.observe().images[CAMERA].tobytes())
        world.step(world.expert())
    return checksum.hexdigest()


# ------------------------------------------------------------------------------------- instructions


def test_there_are_fifty_tasks_in_the_published_tiers() -> None:
    tasks = read_tasks()
    assert Counter(task.tier for task in tasks.values()) == {
        "easy": 28,
        "medium": 11,
        "hard": 6,
        "very hard": 5,
    }
    assert [*tasks][:10] == MT10
    assert {task.max_steps for task in tasks.values()} == {MAX_STEPS}
    written = tomllib.loads(TASKS.read_text(encoding="utf-8")).values()
    assert {key for task in written for key in task} == {"tier", "instructions", "held_out"}


@pytest.mark.parametrize("name", read_tasks())
def test_instructions_are_plain_phrases_and_some_are_held_out(name: str) -> None:
    task = read_tasks()[name]
    assert len(task.instructions) >= 3
    assert len(task.held_out) in (1, 2)
    assert all(
        re.fullmatch(r"[a-z]+( [a-z]+)+", phrase) for phrase in (*task.instructions, *task.held_out)
    )


def test_no_phrase_is_used_twice() -> None:
    phrases = [
        phrase for task in read_tasks().values() for phrase in (*task.instructions, *task.held_out)
    ]
    assert [phrase for phrase, count in Counter(phrases).items() if count > 1] == []


@pytest.mark.parametrize("names", [MT10, [*read_tasks()]], ids=["mt10", "mt50"])
def test_held_out_phrasings_use_words_that_demonstrations_teach(names: list[str]) -> None:
    tasks = [task for name, task in read_tasks().items() if name in names]
    taught = set().union(*(words(task.instructions) for task in tasks))
    assert {
        task.name: words(task.held_out) - taught for task in tasks if words(task.held_out) - taught
    } == {}


# ---------------------------------------------------------------------------------- what is missing


def test_a_missing_package_is_one_line_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.delitem(sys.modules, "metaworld.policies", raising=False)
    with pytest.raises(
        DataError, match=r"^Meta-World is not installed \(.*\); pip install 'joinery\[metaworld\]'$"
    ):
        MetaWorld(MetaWorldConfig())


@pytest.mark.simulator
@pytest.mark.usefixtures("world")
def test_missing_opengl_is_one_line_that_names_the_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", object())  # it has no GLContext
    with pytest.raises(
        DataError, match=r"^Meta-World is drawn by OpenGL, which mujoco\.osmesa .* libegl1 .*\)$"
    ):
        MetaWorld(MetaWorldConfig())


# -------------------------------------------------------------------------------------- conventions


@pytest.mark.simulator
def test_the_conventions_are_metaworlds(world: MetaWorld) -> None:
    world.reset("reach-v3", 0)
    simulation = world._current.environment
    assert world.info.action.scale[:3] == (simulation.action_scale,) * 3
    assert world.info.fps == world.info.action.rate == pytest.approx(1 / simulation.dt)
    assert simulation.max_path_length == MAX_STEPS
    assert [*world.tasks] == MT10
    assert {*world.versions} == {"metaworld", "mujoco", "gymnasium", "opengl"}


@pytest.mark.simulator
def test_mt50_has_every_task(world: MetaWorld) -> None:
    assert {*read_tasks()} == {*world._metaworld.env_dict.MT50_V3}


@pytest.mark.simulator
def test_actions_move_the_hand_and_the_gripper_as_declared(world: MetaWorld) -> None:
    world.reset("reach-v3", 0)
    before = world.observe().proprio
    for _ in range(20):
        world.step(0.5 * UP + OPEN)
    risen = world.observe().proprio
    for _ in range(20):
        world.step(CLOSE)
    closed = world.observe().proprio
    assert risen[2] - before[2] == pytest.approx(20 * 0.5 * 0.01, abs=0.02)
    assert (before.dtype, before.shape) == (np.float32, (len(world.info.proprio),))
    assert closed[3] < 0.6 < 0.9 < risen[3] <= 1.0


@pytest.mark.simulator
def test_actions_beyond_the_limits_count_as_the_limits(world: MetaWorld) -> None:
    world.reset("reach-v3", 0)
    world.step(9 * UP + 9 * OPEN)
    beyond = world.observe().proprio
    world.reset("reach-v3", 0)
    world.step(UP + OPEN)
    np.testing.assert_array_equal(world.observe().proprio, beyond)


@pytest.mark.simulator
def test_images_are_upright(world: MetaWorld) -> None:
    """The red arm stands at the lower left; the grey wall is at the top."""
    world.reset("reach-v3", 0)
    image = world.observe().images[CAMERA].astype(int)
    assert image.shape == (world.info.cameras[CAMERA].height, world.info.cameras[CAMERA].width, 3)
    red = image[..., 0] > image[..., 1] + 60
    grey = np.ptp(image, axis=-1) < 12
    assert red[48:, :48].mean() > 0.1 > 0.02 > red[48:, 48:].mean()
    assert grey[:24].mean() > 0.5 > grey[-24:].mean()


@pytest.mark.simulator
def test_the_camera_is_where_lerobot_puts_it(world: MetaWorld) -> None:
    world.reset("reach-v3", 0)
    world.observe()
    np.testing.assert_allclose(
        world._current.environment.data.camera("corner2").xpos, CAMERA_POSITION
    )


@pytest.mark.simulator
def test_the_first_picture_shows_the_goal_of_its_own_episode(world: MetaWorld) -> None:
    world.reset("push-v3", 1)
    world.reset("push-v3", 2)
    simulation = world._current.environment
    np.testing.assert_allclose(simulation.data.site("goal").xpos, simulation._target_pos)


@pytest.mark.simulator
def test_looking_changes_nothing(world: MetaWorld) -> None:
    world.reset("push-v3", 3)
    once, twice = world.observe(), world.observe()
    np.testing.assert_array_equal(once.images[CAMERA], twice.images[CAMERA])
    np.testing.assert_array_equal(once.proprio, twice.proprio)
    without_images = hashlib.sha256()
    with_images = hashlib.sha256()
    for digest, look in ((without_images, False), (with_images, True)):
        world.reset("push-v3", 3)
        for _ in range(20):
            world.step(world.expert())
            if look:
                world.observe()
            digest.update(world._current.state.tobytes())
    assert with_images.digest() == without_images.digest()


@pytest.mark.simulator
def test_a_coarser_arm_looks_nearly_the_same_and_leaves_the_model_as_it_was(
    world: MetaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reset("push-v3", 3)
    model, data = world._current.environment.model, world._current.environment.data
    triangles, corners = model.mesh_facenum.copy(), model.mesh_face.copy()
    with metaworld._coarse_meshes(model, cell=0.75 / 96):
        assert model.mesh_facenum.sum() < triangles.sum() / 3
        assert model.mesh_facenum.min() > 0
    coarse = metaworld._Renderer(model, 96)
    np.testing.assert_array_equal(model.mesh_facenum, triangles)
    np.testing.assert_array_equal(model.mesh_face, corners)
    monkeypatch.setattr(metaworld, "ARM_MESHES", ())
    fine = metaworld._Renderer(model, 96)
    difference = np.abs(coarse.draw(data).astype(int) - fine.draw(data))
    for renderer in (coarse, fine):
        renderer.close()
    assert 0 < difference.mean() < 1
    assert (difference.max(axis=-1) > 32).mean() < 0.02


@pytest.mark.simulator
def test_an_unknown_task_is_one_line(world: MetaWorld) -> None:
    with pytest.raises(
        DataError, match=r"^metaworld has no task 'push-v2'; did you mean 'push-v3'\?$"
    ):
        world.reset("push-v2", 0)


# -------------------------------------------------------------------------------------------- seeds


@pytest.mark.simulator
@pytest.mark.parametrize("task", ["push-v3", "peg-insert-side-v3"])
def test_a_seed_gives_the_same_episode_in_a_fresh_process(world: MetaWorld, task: str) -> None:
    world.reset(task, 7)
    for _ in range(30):
        world.step(world.expert())  # what was before leaves no trace
    script = (
        "from tests.plugins.test_metaworld import *; world = MetaWorld(MetaWorldConfig()); "
        f"print(episode(world, '{task}', EVALUATION_SEEDS)); world.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == episode(world, task, EVALUATION_SEEDS)


@pytest.mark.simulator
@pytest.mark.parametrize("task", ["reach-v3", "push-v3", "drawer-open-v3", "peg-insert-side-v3"])
def test_no_evaluation_meets_a_placement_of_a_demonstration(world: MetaWorld, task: str) -> None:
    demonstrations = {placement(world, task, seed) for seed in range(60)}
    evaluations = {placement(world, task, EVALUATION_SEEDS + seed) for seed in range(20)}
    assert (len(demonstrations), len(evaluations)) == (60, 20)
    assert not demonstrations & evaluations


@pytest.mark.simulator
def test_few_simulations_are_kept_and_those_made_anew_look_the_same(
    world: MetaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, looks = MT10[:4], {}
    for task in tasks:
        world.reset(task, 4)
        looks[task] = world.observe().images[CAMERA]
    monkeypatch.setattr("plugins.environments.metaworld.MAX_SIMULATIONS", 2)
    while len(world._simulations) > 2:
        world._simulations.pop(next(iter(world._simulations))).close()
    for task in [*tasks, *reversed(tasks)]:
        world.reset(task, 4)
        np.testing.assert_array_equal(world.observe().images[CAMERA], looks[task])
        assert len(world._simulations) == 2


# ------------------------------------------------------------------------------------------ experts


@pytest.mark.simulator
@pytest.mark.parametrize("task", MT10)
def test_the_expert_does_the_task(world: MetaWorld, task: str) -> None:
    world.reset(task, 5)
    for _ in range(world.tasks[task].max_steps):
        action = world.expert()
        assert (action.shape, action.dtype) == ((4,), np.float32)
        assert np.abs(action).max() <= 1
        np.testing.assert_array_equal(world.expert(), action)  # asking changes nothing
        if world.step(action):
            return
    pytest.fail(f"{task}: not done")
