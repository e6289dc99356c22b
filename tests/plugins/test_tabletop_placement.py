"""Scenes with room for the gripper, and orders of tasks that are possible."""

import numpy as np
import pytest

from plugins.environments.tabletop import Tabletop, TabletopConfig
from plugins.environments.tabletop.placement import (
    BLOCK_DISTANCE,
    LANE,
    PUSH_ROOM,
    REGION,
    draw_previous_task,
    is_feasible,
)
from plugins.environments.tabletop.scene import COLOURS
from plugins.environments.tabletop.tasks import TASKS


@pytest.fixture(scope="module")
def table() -> Tabletop:
    return Tabletop(TabletopConfig(image_size=32))


def test_scenes_leave_room_for_gripper_and_pushes(table: Tabletop) -> None:
    for seed in range(30):
        table.reset("push_green_right", seed)
        positions = {
            colour: block.position[:2] for colour, block in table.scene.state().blocks.items()
        }
        for colour in COLOURS:
            assert np.all(positions[colour] >= REGION[0] - 2e-3)
            assert np.all(positions[colour] <= REGION[1] + 2e-3)
            if colour != "green":
                dx, dy = positions[colour] - positions["green"]
                assert abs(dy) > LANE - 2e-3 or abs(dx) > PUSH_ROOM - 2e-3
                assert np.hypot(dx, dy) > BLOCK_DISTANCE - 4e-3


def test_infeasible_orders_are_refused() -> None:
    assert is_feasible(["open_drawer", "place_red_in_drawer", "close_drawer"])
    assert not is_feasible(["close_drawer", "place_red_in_drawer"])
    assert not is_feasible(["place_red_in_drawer", "place_blue_in_drawer"])
    assert not is_feasible(["place_red_in_drawer", "lift_red"])
    assert not is_feasible(["switch_on", "switch_on"])
    assert not is_feasible(["push_red_left", "push_red_right"])


def test_a_previous_task_leaves_the_task_possible() -> None:
    random = np.random.default_rng(0)
    for name, task in TASKS.items():
        for _ in range(5 if task.memory is None else 0):
            assert is_feasible([draw_previous_task(name, random), name])


def test_tasks_that_need_memory_never_come_before_or_after_others(table: Tabletop) -> None:
    for name, task in TASKS.items():
        assert is_feasible([name]) == (task.memory is None)
    for seed in range(50):
        assert all(TASKS[name].memory is None for name in table.begin_chain(seed))


def test_chains_are_what_they_were_before_there_were_tasks_that_need_memory(
    table: Tabletop,
) -> None:
    assert table.begin_chain(0) == [
        "stack_blue_on_red",
        "place_green_in_drawer",
        "switch_on",
        "close_drawer",
        "switch_off",
    ]
