"""Scenes: where everything stands when an episode or a chain begins, as a function of its seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plugins.environments.tabletop.scene import (
    COLOURS,
    DRAWER_TRAVEL,
    HALF_BLOCK,
    SLIDER_END,
    Block,
)
from plugins.environments.tabletop.tasks import TASKS, TabletopTask

REGION = np.array([[-0.13, -0.19], [0.13, -0.05]])  # where blocks stand
APART = 0.09  # between the middles of two blocks: room for open fingers
LANE = 0.05  # free to either side of a block that is pushed
PUSHED = 0.14  # free ahead of it, and behind it for the gripper
LARGEST_YAW = 0.6  # at 45 degrees a cube's sides could be told apart no more


@dataclass(frozen=True)
class Start:
    """Where everything is at the start; the fields are the arguments of `Scene.arrange`."""

    tcp: np.ndarray
    yaw: float
    open_gripper: bool
    blocks: Mapping[str, Block]
    fixtures: Mapping[str, float]


def start(tasks: Sequence[str], random: np.random.Generator) -> Start:
    """Draw a start from which the first of `tasks` is possible, and the pushes among them have a
    free lane.
    """
    chosen = [TASKS[name] for name in tasks]
    fixtures = {
        "drawer": DRAWER_TRAVEL * float(random.random() < 0.5),
        "slider": SLIDER_END * float(random.choice([-1, 1])),
        "lamp": float(random.random() < 0.5),
    }
    for task in reversed(chosen):  # the first task's needs count most
        fixtures |= {name: value for name, value in task.needs.items() if name in fixtures}
    return Start(
        tcp=random.uniform([-0.16, -0.16, 0.09], [0.16, 0.08, 0.17]),
        yaw=float(random.uniform(-0.4, 0.4)),
        open_gripper=bool(random.random() < 0.7),
        blocks=_blocks(chosen, random),
        fixtures=fixtures,
    )


def chain(random: np.random.Generator, length: int = 5) -> list[str]:
    """Draw tasks that can be done one after the other, each once (after CALVIN's chains of
    instructions).
    """
    names: list[str] = []
    while len(names) < length:
        names.append(str(random.choice([name for name in TASKS if feasible([*names, name])])))
    return names


def before(task: str, random: np.random.Generator) -> str:
    """Draw a task after which `task` is possible."""
    return str(random.choice([name for name in TASKS if feasible([name, task])]))


def feasible(names: Sequence[str]) -> bool:
    """Whether tasks can be done one after the other, each once, whatever the scene holds before the
    first.
    """
    fixtures: dict[str, float] = {"room": 1.0}  # what is known of them
    taken: set[str] = set()  # blocks that do not stand free
    pushed: set[str] = set()  # a block that is pushed twice might leave its free lane
    for task in map(TASKS.__getitem__, names):
        fits = all(fixtures.get(name, value) == value for name, value in task.needs.items())
        if not fits or taken & {*task.blocks} or (task.pushes and pushed & {*task.blocks}):
            return False
        fixtures |= {**task.needs, **task.leaves}
        taken |= {*task.blocks} if task.uses_up else set()
        pushed |= {*task.blocks} if task.pushes else set()
    return len(set(names)) == len(names)


def _blocks(tasks: Sequence[TabletopTask], random: np.random.Generator) -> dict[str, Block]:
    while True:
        places = dict(
            zip(COLOURS, random.uniform(REGION[0], REGION[1], (len(COLOURS), 2)), strict=True)
        )
        if _apart(list(places.values())) and all(
            _free(task, places) for task in tasks if task.pushes
        ):
            break
    return {
        colour: Block(
            np.array([*place, HALF_BLOCK]), float(random.uniform(-LARGEST_YAW, LARGEST_YAW))
        )
        for colour, place in places.items()
    }


def _apart(places: Sequence[np.ndarray]) -> bool:
    return all(np.linalg.norm(a - b) > APART for i, a in enumerate(places) for b in places[:i])


def _free(task: TabletopTask, places: Mapping[str, np.ndarray]) -> bool:
    """No other block stands in the way of a push, or of the gripper behind it."""
    (pushed,) = task.blocks
    offsets = [places[colour] - places[pushed] for colour in places if colour != pushed]
    return all(abs(dy) > LANE or abs(dx) > PUSHED for dx, dy in offsets)
