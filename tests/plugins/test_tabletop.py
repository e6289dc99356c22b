"""The table: its physics repeats, experts do its tasks, and images need no OpenGL."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from core.registry.catalogue import load_plugins
from plugins.environments.tabletop import Tabletop, TabletopConfig
from plugins.environments.tabletop.placement import (
    is_feasible,
)
from plugins.environments.tabletop.scene import (
    COLOURS,
    HIGH,
    LOW,
    ROTATION,
    TRANSLATION,
    State,
    wrap,
)
from plugins.environments.tabletop.tasks import TASKS

ROOT = Path(__file__).parents[2]
STILL = np.array([0, 0, 0, 0, 0, 0, 1.0])


@pytest.fixture(scope="module")
def table() -> Tabletop:
    return Tabletop(TabletopConfig(image_size=32))


def run_expert(table: Tabletop, task: str, noise: float = 0.0, seed: int = 0) -> bool:
    random = np.random.default_rng(seed)
    for _ in range(table.tasks[task].max_steps):
        action = table.expert().copy()
        action[:6] += noise * random.normal(size=6)
        if table.step(action):
            return True
    return False


# ------------------------------------------------------------------------------------- the contract


def test_is_registered() -> None:
    component = load_plugins()["environment"].get("tabletop")
    assert component is not None
    assert component.config is TabletopConfig


def test_observations_are_what_the_info_says(table: Tabletop) -> None:
    table.reset("lift_red", 0)
    observation = table.observe()
    assert {name: image.shape for name, image in observation.images.items()} == {
        name: (camera.height, camera.width, 3) for name, camera in table.info.cameras.items()
    }
    assert all(image.dtype == np.uint8 for image in observation.images.values())
    assert observation.proprio.shape == (len(table.info.proprio),)
    assert observation.proprio.dtype == np.float32
    assert table.expert().shape == (table.info.action.dim,)


@pytest.mark.parametrize("continued", [0.0, 1.0])
def test_the_same_seed_and_actions_give_the_same_episode(continued: float) -> None:
    observations = []
    for _ in range(2):
        table = Tabletop(TabletopConfig(image_size=16, continued=continued))
        table.reset("push_blue_left", 3)  # what came before leaves no trace
        table.step(table.expert())
        table.reset("stack_red_on_green", 5)
        random = np.random.default_rng(0)
        for _ in range(10):
            table.step(random.uniform(-1, 1, 7))
        observations.append(table.observe())
    np.testing.assert_array_equal(observations[0].proprio, observations[1].proprio)
    for name in observations[0].images:
        np.testing.assert_array_equal(observations[0].images[name], observations[1].images[name])


@pytest.mark.parametrize(("size", "cameras"), [(16, ("static",)), (128, ("wrist",))])
def test_images_have_the_size_and_the_cameras_that_were_asked_for(
    size: int, cameras: tuple[str, ...]
) -> None:
    table = Tabletop(TabletopConfig(image_size=size, cameras=cameras))  # type: ignore[arg-type]
    table.reset("lift_red", 0)
    images = table.observe().images
    assert {name: image.shape for name, image in images.items()} == dict.fromkeys(
        cameras, (size, size, 3)
    )
    assert all(image.std() > 10 for image in images.values())


def test_an_unknown_task_is_refused(table: Tabletop) -> None:
    for ask in (lambda: table.reset("lift_rad", 0), lambda: table.proceed("lift_rad")):
        with pytest.raises(
            DataError, match=r"^tabletop has no task 'lift_rad'; did you mean 'lift_red'\?$"
        ):
            ask()


def test_nothing_is_done_before_a_task_is_asked_for() -> None:
    table = Tabletop(TabletopConfig(image_size=16))
    for act in (lambda: table.step(STILL), table.expert):
        with pytest.raises(DataError, match="reset comes first"):
            act()


@pytest.mark.parametrize(
    "action", [np.full(7, np.nan), np.full(7, np.inf), STILL[:6], np.zeros(9), STILL[None]]
)
def test_an_invalid_action_is_refused_and_moves_nothing(
    table: Tabletop, action: np.ndarray
) -> None:
    table.reset("lift_red", 0)
    before = table.scene.data.qpos.copy()
    with pytest.raises(DataError, match="an action"):
        table.step(action)
    np.testing.assert_array_equal(table.scene.data.qpos, before)


def test_seeds_and_tasks_differ(table: Tabletop) -> None:
    scenes = set()
    for task, seed in (("lift_red", 0), ("lift_red", 1), ("lift_blue", 0)):
        table.reset(task, seed)
        scenes.add(table.observe().images["static"].tobytes())
    assert len(scenes) == 3


def test_needs_neither_torch_nor_opengl() -> None:
    code = """
import sys
from plugins.environments.tabletop import Tabletop, TabletopConfig
table = Tabletop(TabletopConfig())
table.reset("lift_red", 0)
table.observe()
assert "torch" not in sys.modules
assert not any(name.startswith(("OpenGL", "glfw")) for name in sys.modules)
"""
    environment = {"PATH": "/usr/bin:/bin", "MUJOCO_GL": "disable", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


# ------------------------------------------------------------------------------------------ actions


def test_actions_move_by_what_the_convention_says(table: Tabletop) -> None:
    """A steady action moves the gripper by its scale per step, less the lag of the first steps."""
    for axis, scale in ((0, TRANSLATION), (2, TRANSLATION), (5, ROTATION)):
        table.reset("lift_red", 1)
        for sign in (1, -1, 1):
            action = STILL.copy()
            action[axis] = sign * 0.5
            before = table.observe().proprio[axis]
            for _ in range(4):
                table.step(action)
            moved = table.observe().proprio[axis] - before
            assert 0.5 * 4 * 0.5 * scale < sign * moved <= 4 * 0.5 * scale * 1.05


def test_no_action_keeps_still(table: Tabletop) -> None:
    table.reset("lift_red", 2)
    before = table.observe().proprio
    for _ in range(20):
        table.step(STILL)
    np.testing.assert_allclose(table.observe().proprio[:6], before[:6], atol=2e-3)


def test_the_gripper_opens_and_closes(table: Tabletop) -> None:
    table.reset("lift_red", 2)
    for command, expected in ((1.0, 0.08), (-1.0, 0.0)):
        for _ in range(15):
            table.step(np.array([0, 0, 0, 0, 0, 0, command]))
        assert table.observe().proprio[-1] == pytest.approx(expected, abs=2e-3)


def test_actions_beyond_the_limits_are_clipped(table: Tabletop) -> None:
    table.reset("lift_red", 3)
    for direction in (-1, 1):
        for _ in range(60):
            table.step(np.array([direction * 50.0] * 3 + [0, 0, 0, 1]))
        position = table.observe().proprio[:3]
        assert np.all(position > LOW - 0.02)
        assert np.all(position < HIGH + 0.02)


def test_blocks_are_held_by_friction(table: Tabletop) -> None:
    """Shaking a lifted block does not lose it, and opening drops it."""
    table.reset("lift_green", 0)
    assert run_expert(table, "lift_green")
    random = np.random.default_rng(0)
    for _ in range(40):
        table.step(np.array([*random.uniform(-0.5, 0.5, 3), 0, 0, random.uniform(-0.5, 0.5), -1]))
    assert table.scene.state().held == "green"
    for _ in range(20):
        table.step(STILL)
    state = table.scene.state()
    assert state.held is None
    assert state.blocks["green"].position[2] < 0.05


# -------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("name", TASKS)
def test_experts_succeed_with_and_without_noise(name: str, table: Tabletop) -> None:
    for seed, noise in ((0, 0.0), (1, 0.0), (2, 0.3), (3, 0.3)):
        table.reset(name, seed)
        assert run_expert(table, name, noise, seed), (seed, noise)


@pytest.mark.parametrize("name", TASKS)
def test_nothing_is_done_by_doing_nothing(name: str, table: Tabletop) -> None:
    table.reset(name, 0)
    assert not any(table.step(STILL) for _ in range(10))


@pytest.mark.parametrize(
    "name", ["lift_red", "push_red_left", "rotate_green", "slide_left", "switch_on"]
)
def test_another_tasks_expert_does_not_do_it(name: str, table: Tabletop) -> None:
    """What is done to one block or fixture is not success at another."""
    other = {
        "lift_red": "lift_blue",
        "push_red_left": "push_red_right",
        "rotate_green": "rotate_blue",
    }
    other |= {"slide_left": "switch_off", "switch_on": "slide_right"}
    table.reset(other[name], 4)
    table.proceed(name)
    expert = TASKS[other[name]].expert
    assert not any(table.step(expert(table.scene.state())) for _ in range(60))


def test_a_block_that_another_pushes_is_not_what_was_pushed(table: Tabletop) -> None:
    table.reset("push_red_left", 0)
    before = table.scene.state()

    def moved(**by: float) -> State:
        shift = {colour: np.array([-by.get(colour, 0.0), 0, 0]) for colour in COLOURS}
        blocks = {
            c: replace(block, position=block.position + shift[c])
            for c, block in before.blocks.items()
        }
        return replace(before, blocks=blocks)

    done = TASKS["push_red_left"].done
    assert done(before, moved(red=0.05))
    assert done(before, moved(red=0.05, green=0.02))
    assert not done(before, moved(red=0.05, green=0.07))
    assert not done(before, moved(red=0.03))


def test_every_task_has_six_instructions_and_two_for_evaluation() -> None:
    texts = [
        text for task in TASKS.values() for text in (*task.task.instructions, *task.task.held_out)
    ]
    assert len(texts) == len(set(texts))
    for task in TASKS.values():
        assert len(task.task.instructions) >= 6
        assert len(task.task.held_out) == 2
        colours = [colour for colour in COLOURS if colour in task.task.name]
        for text in (*task.task.instructions, *task.task.held_out):
            assert all(colour in text for colour in colours)


# ------------------------------------------------------------------------------------------- chains


def test_chains_are_feasible_and_repeat(table: Tabletop) -> None:
    for seed in range(50):
        chain = table.begin_chain(seed)
        assert len(chain) == 5
        assert is_feasible(chain)
        assert table.begin_chain(seed) == chain


@pytest.mark.parametrize("seed", range(4))
def test_experts_complete_chains(seed: int, table: Tabletop) -> None:
    for task in table.begin_chain(seed):
        table.proceed(task)
        assert run_expert(table, task)


def test_wrap() -> None:
    np.testing.assert_allclose(
        wrap(np.array([0.1, np.pi + 0.1, -np.pi - 0.1])), [0.1, -np.pi + 0.1, np.pi - 0.1]
    )
