"""Draws scenes at random: where everything is when an episode or a chain of tasks begins."""

from collections.abc import Mapping, Sequence

import numpy as np

from plugins.environments.tabletop.definition import TabletopTask
from plugins.environments.tabletop.scene import (
    COLOURS,
    DRAWER_TRAVEL,
    HALF_BLOCK,
    SLIDER_END,
    Block,
    Start,
)
from plugins.environments.tabletop.tasks import TASKS

REGION = np.array([[-0.13, -0.19], [0.13, -0.05]])  # where blocks stand
BLOCK_DISTANCE = 0.09  # minimum distance between two blocks' centres: room for open fingers
# A block that will be pushed has a lane, in which no other block's centre lies. LANE and PUSH_ROOM
# are distances in metres from the block's centre to the edges of the lane.
LANE = 0.05  # to either side
PUSH_ROOM = 0.14  # ahead of the block; also behind it, as room for the gripper
# maximum yaw of a block in radians; near 45 degrees it would be unclear which two sides of a cube
# the gripper should grasp
LARGEST_YAW = 0.6


def draw_start(tasks: Sequence[str], random: np.random.Generator) -> Start:
    """Draw a start in which the first task is possible and every pushed block has a free lane."""
    table_tasks = [TASKS[name] for name in tasks]
    fixtures = {
        "drawer": DRAWER_TRAVEL * float(random.random() < 0.5),
        "slider": SLIDER_END * float(random.choice([-1, 1])),
        "lamp": float(random.random() < 0.5),
    }
    # in reverse order: an earlier task's needs replace those of later tasks
    for task in reversed(table_tasks):
        fixtures |= {name: value for name, value in task.needs.items() if name in fixtures}
    return Start(
        tcp=random.uniform([-0.16, -0.16, 0.09], [0.16, 0.08, 0.17]),
        yaw=float(random.uniform(-0.4, 0.4)),
        open_gripper=bool(random.random() < 0.7),
        blocks=_draw_blocks(table_tasks, random),
        fixtures=fixtures,
    )


def draw_chain(random: np.random.Generator, length: int = 5) -> list[str]:
    """Draw different tasks that can be done one after the other, like CALVIN's chains."""
    names: list[str] = []
    while len(names) < length:
        names.append(str(random.choice([name for name in TASKS if is_feasible([*names, name])])))
    return names


def draw_previous_task(task: str, random: np.random.Generator) -> str:
    """Draw a task after which `task` is possible, which must not be one that needs memory."""
    return str(random.choice([name for name in TASKS if is_feasible([name, task])]))


def is_feasible(names: Sequence[str]) -> bool:
    """Return whether all tasks differ, and can be done in this order from some scene.

    No task that needs memory can be among them, not even alone.
    """
    if any(TASKS[name].memory for name in names):
        return False  # a show needs a scene of its own
    # {fixture: state}; a fixture is absent while its state is unknown
    fixtures: dict[str, float] = {"room": 1.0}
    used_up: set[str] = set()  # blocks that no longer stand free on the table
    # Blocks that were pushed. No block is pushed twice, because a second push might move the block
    # out of the lane that is free of other blocks.
    pushed: set[str] = set()
    for task in map(TASKS.__getitem__, names):
        blocks = {*task.blocks}
        needs_are_met = all(
            fixtures.get(name, value) == value for name, value in task.needs.items()
        )
        if not needs_are_met or used_up & blocks or (task.pushes and pushed & blocks):
            return False
        fixtures |= {**task.needs, **task.leaves}
        if task.uses_up:
            used_up |= blocks
        if task.pushes:
            pushed |= blocks
    return len(set(names)) == len(names)


def _draw_blocks(tasks: Sequence[TabletopTask], random: np.random.Generator) -> dict[str, Block]:
    """Draw the blocks' poses until there is room for the gripper and for pushes."""
    while True:
        points = random.uniform(REGION[0], REGION[1], (len(COLOURS), 2))
        positions = dict(zip(COLOURS, points, strict=True))
        are_apart = all(
            np.linalg.norm(a - b) > BLOCK_DISTANCE for i, a in enumerate(points) for b in points[:i]
        )
        if are_apart and all(_has_lane(task, positions) for task in tasks if task.pushes):
            break
    blocks = {}
    for colour, position in positions.items():
        yaw = float(random.uniform(-LARGEST_YAW, LARGEST_YAW))
        blocks[colour] = Block(np.array([*position, HALF_BLOCK]), yaw)
    return blocks


def _has_lane(task: TabletopTask, positions: Mapping[str, np.ndarray]) -> bool:
    """Return whether the lane of the pushed block is free of other blocks."""
    (pushed,) = task.blocks
    offsets = [positions[colour] - positions[pushed] for colour in positions if colour != pushed]
    return all(abs(dy) > LANE or abs(dx) > PUSH_ROOM for dx, dy in offsets)
