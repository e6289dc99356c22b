"""robosuite: names that fit robomimic's files, scenes and pictures that are robosuite's own."""

import json
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from zlib import crc32

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from core import run
from core.environments.checked import expert_action, reset, step
from core.errors import DataError
from core.rollout.actor import disagreements
from plugins.environments.robosuite import Robosuite, RobosuiteConfig, simulation
from plugins.environments.robosuite.environment import HELD_OUT, INSTRUCTIONS, _make_info
from plugins.environments.robosuite.simulation import PROPRIO, import_robosuite
from tests.core.testing.failing import failures
from tests.toy_policy import RECIPE

OSC = {"type": "OSC_POSE", "output_max": [0.05] * 3 + [0.5] * 3}
CONTROLLERS = {  # as files of robosuite 1.4 and 1.5 describe it
    "world": OSC | {"control_delta": True},
    "base": {"type": "BASIC", "body_parts": {"right": OSC | {"input_type": "delta"}}},
}
CUBES = {"Lift": ["cube"], "Stack": ["cubeA", "cubeB"]}


@pytest.fixture(scope="module")
def world() -> Iterator[Robosuite]:
    try:
        world = Robosuite(RobosuiteConfig(image_size=32))
    except DataError as error:
        pytest.skip(str(error))
    yield world
    world.close()


def act(world: Robosuite, action: list[float], steps: int) -> np.ndarray:
    """Repeat an action; return the proprioception after it."""
    for _ in range(steps):
        world.step(np.array(action, np.float32))
    return world.observe().proprio


def rotation(proprio: np.ndarray) -> Rotation:
    return Rotation.from_quat(proprio[3:7])  # x y z w


# ---------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("package", "found"),
    [("robosuite", "1.4.1"), ("robosuite", "1.6.0"), ("mujoco", "3.2.7"), ("mujoco", "3.10.0rc1")],
)
def test_another_version_is_one_line_that_says_which_fit(monkeypatch, package, found):
    versions = {"robosuite": "1.5.2", "mujoco": "3.3.0", package: found}
    monkeypatch.setattr(simulation, "version", versions.get)
    with pytest.raises(
        DataError,
        match=rf"^{package} {found} does not fit: .* need {package} .*pip install 'joinery\[robos",
    ):
        import_robosuite()


def test_a_missing_package_is_one_line(monkeypatch):
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(simulation, "version", version)
    with pytest.raises(
        DataError, match=r"^robosuite is not installed; pip install 'joinery\[robosuite\]'$"
    ):
        import_robosuite()


# ---------------------------------------------------------------------------------- names, meanings


@pytest.mark.parametrize("frame", ["world", "base"])
def test_what_robomimics_files_are_imported_as_fits(frame, tmp_path):
    """A policy that was trained on an imported file can act here without any renaming."""
    h5py = pytest.importorskip("h5py", reason="needs h5py (pip install -e '.[robomimic]')")
    from plugins.datasets.robomimic import Robomimic, RobomimicConfig

    info = _make_info(RobosuiteConfig(frame=frame))
    settings = {"controller_configs": CONTROLLERS[frame], "control_freq": 20}
    with h5py.File(tmp_path / "lift.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": settings})
        data["demo_0/actions"] = np.zeros((2, 7), np.float32)
        for name, size in PROPRIO.items():
            data[f"demo_0/obs/{name}"] = np.zeros((2, size))
        for name in info.cameras:
            data[f"demo_0/obs/{name}"] = np.zeros((2, 84, 84, 3), np.uint8)
    config = RobomimicConfig(instruction="lift the red cube", flip=False)
    imported = Robomimic(config, source=tmp_path / "lift.hdf5").info
    assert list(disagreements(imported, info, "the data")) == []
    assert imported.proprio == info.proprio
    assert imported.action.frame == frame


@pytest.mark.parametrize("task", INSTRUCTIONS)
def test_held_out_phrasings_use_words_that_demonstrations_teach(task):
    taught = {word for phrase in INSTRUCTIONS[task] for word in phrase.split()}
    held_out = {word for phrase in HELD_OUT[task] for word in phrase.split()}
    assert held_out <= taught
    assert not {*HELD_OUT[task]} & {*INSTRUCTIONS[task]}


# -------------------------------------------------------------------------------------- conventions


@pytest.mark.simulator
def test_the_conventions_are_robosuites(world):
    world.reset("Lift", 0)
    environment = world._current.environment
    arm = environment.robots[0].part_controllers["right"]
    assert (arm.name, arm.input_type, arm.input_ref_frame) == ("OSC_POSE", "delta", "base")
    assert (*arm.output_max, 1.0) == world.info.action.scale
    assert environment.control_freq == world.info.fps
    np.testing.assert_array_equal(environment.action_spec[1], np.ones(7))


@pytest.mark.simulator
def test_actions_move_hand_and_fingers_as_declared(world):
    world.reset("Lift", 0)
    start = act(world, [0, 0, 0, 0, 0, 0, -1], 5)
    for axis, name in enumerate("xyz"):
        before = act(world, [0] * 7, 1)
        moved = act(world, [0.4 * (i == axis) for i in range(6)] + [-1], 10) - before
        assert moved[axis] > 0.03, name
        assert np.abs(np.delete(moved[:3], axis)).max() < 0.02, name
    for axis, name in enumerate("xyz"):
        world.reset("Lift", 0)
        before = world.observe().proprio
        after = act(world, [0] * 3 + [0.3 * (i == axis) for i in range(3)] + [-1], 6)
        turned = (rotation(after) * rotation(before).inv()).as_rotvec()
        assert turned[axis] > 0.1, name
        assert np.abs(np.delete(turned, axis)).max() < 0.08, name
    closed = act(world, [0] * 6 + [1], 15)
    width = {key: x[7] - x[8] for key, x in {"open": start, "closed": closed}.items()}
    assert width["open"] > 0.06 > 0.01 > width["closed"]


@pytest.mark.simulator
def test_both_frames_give_the_same_movement(world):
    """The base is not turned, so files of either frame may be evaluated in their own."""
    reached = []
    for frame in ("base", "world"):
        other = Robosuite(RobosuiteConfig(image_size=32, frame=frame))
        other.reset("Lift", 0)
        reached.append(act(other, [0.5, 0.2, -0.3, 0.1, 0.2, 0.3, 1], 10))
        other.close()
    np.testing.assert_allclose(*reached, atol=1e-5)


@pytest.mark.simulator
def test_the_proprioception_is_of_the_same_moment_as_the_picture(world):
    world.reset("Lift", 0)
    act(world, [1, 0, 0, 0, 0, 0, -1], 5)
    before = world.observe().proprio
    sim = world._current.environment.sim
    sim.forward()  # what files of robomimic were made with, from stored states
    np.testing.assert_array_equal(world.observe().proprio, before)


# ------------------------------------------------------------------------------ scenes and pictures


@pytest.mark.simulator
@pytest.mark.parametrize("task", CUBES)
def test_scenes_are_those_that_robosuite_builds_anew(world, task):
    """The scene is built once, and only the size of the cube is drawn again."""
    for seed in (0, 5):
        world.reset(task, seed)
    ours = world._current.environment
    theirs = world._robosuite.make(
        task,
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        renderer="mujoco",
        ignore_done=True,
    )
    state = np.random.default_rng([crc32(task.encode()), 5]).bit_generator.state
    theirs.rng.bit_generator.state = state
    theirs.reset()
    np.testing.assert_array_equal(ours.sim.data.qpos, theirs.sim.data.qpos)
    models = [x.sim.model._model for x in (ours, theirs)]
    for name in dir(models[0]):
        first, second = (getattr(model, name) for model in models)
        if not name.startswith("_") and isinstance(first, np.ndarray):
            np.testing.assert_allclose(first, second, rtol=1e-9, err_msg=name)
    for number in range(10):
        action = np.sin(np.arange(7) + number)
        ours.step(action)
        theirs.step(action)
    np.testing.assert_allclose(ours.sim.data.qpos, theirs.sim.data.qpos, atol=1e-9)
    theirs.close()


@pytest.mark.simulator
def test_cubes_of_lift_have_several_sizes(world):
    sizes = []
    for seed in range(8):
        world.reset("Lift", seed)
        sizes.append(world._current.environment.cube.size)
    assert 0.0200 < np.min(sizes) < 0.0205 < 0.0215 < np.max(sizes) < 0.0220


@pytest.mark.simulator
def test_pictures_are_robosuites_but_upright(world):
    """The robot stands at the top of what the camera opposite of it sees."""
    world.reset("Lift", 0)
    image = world.observe().images["agentview_image"]
    assert image[:6, 10:22].mean() + 50 < image[-6:].mean()  # dark arm, white table
    sim = world._current.environment.sim
    world._current.environment.has_offscreen_renderer = True
    context = import_module("robosuite.utils.binding_utils").MjRenderContextOffscreen(sim, -1)
    context.vopt.geomgroup[0] = 0
    theirs = sim.render(camera_name="agentview", width=32, height=32)
    world._current.environment.has_offscreen_renderer = False
    np.testing.assert_array_equal(image, theirs[::-1])


@pytest.mark.simulator
def test_tasks_and_cameras_are_those_of_the_recipe():
    config = RobosuiteConfig(tasks=("Stack",), cameras=("frontview",), image_size=16, horizon=7)
    try:
        world = Robosuite(config)
    except DataError as error:
        pytest.skip(str(error))
    assert [(task.name, task.max_steps) for task in world.tasks.values()] == [("Stack", 7)]
    with pytest.raises(DataError, match=r"^robosuite has no task 'Lift' here"):
        world.reset("Lift", 0)
    world.reset("Stack", 0)
    assert {name: x.shape for name, x in world.observe().images.items()} == {
        "frontview_image": (16, 16, 3)
    }
    world.close()


# ------------------------------------------------------------------------------------------ experts


@pytest.mark.simulator
@pytest.mark.parametrize("task", CUBES)
@pytest.mark.parametrize("push", [0.0, 0.6])
def test_experts_succeed_and_find_back_from_disturbances(world, task, push):
    """Once in a second, the hand is pushed aside for a fifth of one."""
    for seed in (0, 1):
        reset(world, task, seed)
        for number in range(world.tasks[task].max_steps):
            action = expert_action(world)
            action[:3] += push * (number % 20 < 4)
            if step(world, action).success:
                break
        else:
            pytest.fail(f"seed {seed}: no success")


# ---------------------------------------------------------------------------------- the environment


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.usefixtures("world")
def test_the_contract():
    assert not failures("environment", Robosuite, RobosuiteConfig(image_size=16), slow=True)


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("world")
def test_training_and_evaluation(tmp_path):
    head, _, tail = RECIPE.partition('name = "toy"\n')
    settings = 'name = "robosuite"\ntasks = ["Lift"]\nimage_size = 32\nhorizon = 40\n'
    evaluate = "[evaluate]\nepisodes = 1\nnum_envs = 1\nreplan_steps = 3\n"
    recipe = f"{head}{settings}{tail}{evaluate}".replace("episodes = 3\n", "episodes = 1\n")
    recipe = recipe.replace("window = 2\n", "window = 2\nvalidation_episodes = 0\n")
    (tmp_path / "lift.toml").write_text(recipe.replace("steps = 4\n", "steps = 2\n"))
    assert run.main([str(tmp_path / "lift.toml"), "--output", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    (episode,) = results["episodes"]
    assert episode["failure"] is None
    assert {"robosuite", "mujoco", "opengl"} <= {*results["environment"]["versions"]}
