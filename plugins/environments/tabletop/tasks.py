"""The tasks, each with conditions, a test of success, instructions and an expert."""

from collections.abc import Mapping
from functools import partial

from core.environments import Task
from plugins.environments.tabletop import experts, oracles
from plugins.environments.tabletop.definition import TabletopTask, make_task
from plugins.environments.tabletop.memory_tasks import memory_tasks
from plugins.environments.tabletop.scene import BUTTON, COLOURS, DRAWER_TRAVEL, SLIDER_END


def _task(kind: str, name: str, max_steps: int, colour: str = "", below: str = "") -> Task:
    return make_task(kind, name, max_steps, kind, colour, below)


def _lift(colour: str) -> TabletopTask:
    task = _task("lift", f"lift_{colour}", 60, colour)
    return TabletopTask(
        task, partial(oracles.is_lifted, colour), partial(experts.lift, colour), blocks=(colour,)
    )


def _push(colour: str, side: str, sign: int) -> TabletopTask:
    task = _task(f"push_{side}", f"push_{colour}_{side}", 60, colour)
    expert = experts.pushing(partial(experts.block_position, colour), (sign, 0.0, 0.0))
    return TabletopTask(
        task, partial(oracles.is_pushed, colour, sign), expert, blocks=(colour,), pushes=True
    )


def _rotate(colour: str) -> TabletopTask:
    task = _task("rotate", f"rotate_{colour}", 80, colour)
    return TabletopTask(
        task, partial(oracles.is_rotated, colour), partial(experts.rotate, colour), blocks=(colour,)
    )


def _place(colour: str) -> TabletopTask:
    return TabletopTask(
        _task("place", f"place_{colour}_in_drawer", 100, colour),
        partial(oracles.is_in_drawer, colour),
        partial(experts.place, colour),
        needs={"drawer": DRAWER_TRAVEL, "room": 1.0},
        leaves={"room": 0.0},
        blocks=(colour,),
        uses_up=True,
    )


def _stack(colour: str, below: str) -> TabletopTask:
    return TabletopTask(
        _task("stack", f"stack_{colour}_on_{below}", 100, colour, below),
        partial(oracles.is_stacked, colour, below),
        partial(experts.stack, colour, below),
        blocks=(colour, below),
        uses_up=True,
    )


def _open_drawer() -> TabletopTask:
    task = _task("open_drawer", "open_drawer", 80)
    return TabletopTask(
        task, oracles.is_drawer_opened, experts.pull, {"drawer": 0.0}, {"drawer": DRAWER_TRAVEL}
    )


def _close_drawer() -> TabletopTask:
    task = _task("close_drawer", "close_drawer", 80)
    expert = experts.pushing(experts.handle_front, (0.0, 1.0, 0.0), gap=0.045)
    return TabletopTask(
        task, oracles.is_drawer_closed, expert, {"drawer": DRAWER_TRAVEL}, {"drawer": 0.0}
    )


def _slide(side: str, sign: int) -> TabletopTask:
    task = _task(f"slide_{side}", f"slide_{side}", 80)
    expert = experts.pushing(experts.slider_post, (sign, 0.0, 0.0), gap=0.045)
    needs, leaves = {"slider": -sign * SLIDER_END}, {"slider": sign * SLIDER_END}
    return TabletopTask(task, partial(oracles.is_slid, sign), expert, needs, leaves)


def _switch(name: str, on: bool) -> TabletopTask:
    expert = partial(experts.press, BUTTON)
    needs, leaves = {"lamp": float(not on)}, {"lamp": float(on)}
    return TabletopTask(
        _task(name, name, 80), partial(oracles.is_switched, on), expert, needs, leaves
    )


def _all_tasks() -> list[TabletopTask]:
    """Return all tasks; their order must not change, because seeds depend on it."""
    # the block of each colour is stacked on the block of the next colour
    below = dict(zip(COLOURS, (*COLOURS[1:], COLOURS[0]), strict=True))
    return [
        *map(_lift, COLOURS),
        *(_push(colour, "left", -1) for colour in COLOURS),
        *(_push(colour, "right", 1) for colour in COLOURS),
        *map(_rotate, COLOURS),
        *map(_place, COLOURS),
        *(_stack(colour, below[colour]) for colour in COLOURS),
        _open_drawer(),
        _close_drawer(),
        _slide("left", -1),
        _slide("right", 1),
        _switch("switch_on", True),
        _switch("switch_off", False),
        *memory_tasks(),
    ]


TASKS: Mapping[str, TabletopTask] = {task.task.name: task for task in _all_tasks()}
