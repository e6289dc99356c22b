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
    for task in TASKS:
        for _ in range(5):
            assert is_feasible([draw_previous_task(task, random), task])
