"""The tasks, each with conditions, a test of success, instructions and an expert."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from core.environments import Task
from plugins.environments.tabletop import experts
from plugins.environments.tabletop.instructions import HELD_OUT, INSTRUCTIONS
from plugins.environments.tabletop.scene import (
    BUTTON,
    COLOURS,
    DRAWER,
    DRAWER_TRAVEL,
    HALF_BLOCK,
    SLIDER_END,
    State,
    wrap,
)

# returns whether a task is done, given the state at its beginning and the present state
Oracle = Callable[[State, State], bool]


@dataclass(frozen=True)
class TabletopTask:
    """A task of the table.

    task: name and instructions.
    done: returns whether the task is done.
    expert: returns the action that demonstrates the task.
    needs, leaves: the states that fixtures must have before the task, and the states that they have
        after it, for example {"drawer": DRAWER_TRAVEL}. Fixtures are "drawer" and "slider", in
        metres; "lamp"; and "room", whether the drawer has room for a block.
    blocks: the block that the task moves, if any; for stacking, also the block below.
    pushes: whether the task pushes a block. A pushed block needs free space on all four sides.
    uses_up: whether the task's blocks no longer stand free on the table afterwards.
    """

    task: Task
    done: Oracle
    expert: experts.Expert
    needs: Mapping[str, float] = field(default_factory=dict)
    leaves: Mapping[str, float] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    pushes: bool = False
    uses_up: bool = False


# ------------------------------------------------------------------------------- when they are done


def _is_lifted(colour: str, before: State, now: State) -> bool:
    """Return whether a block is held, and has risen by more than five centimetres.

    The rise is measured from the height of a block that stands on the table, even if the lifted
    block began on top of another block.
    """
    rise = now.blocks[colour].position[2] - min(before.blocks[colour].position[2], HALF_BLOCK)
    return bool(now.held == colour and rise > 0.05)


def _is_pushed(colour: str, direction: int, before: State, now: State) -> bool:
    """Return whether a block on the table has moved more than four centimetres in `direction`.

    The result is False if another block has moved further: that block may have pushed this one.

    direction: 1 for right, -1 for left.
    """
    distances = {
        name: direction * (block.position[0] - before.blocks[name].position[0])
        for name, block in now.blocks.items()
    }
    is_on_table = now.blocks[colour].position[2] < 1.5 * HALF_BLOCK
    moved_furthest = distances[colour] == max(distances.values())
    return bool(is_on_table and distances[colour] > 0.04 and moved_furthest)


def _is_rotated(colour: str, before: State, now: State) -> bool:
    """Return whether a block on the table has turned counter-clockwise by more than 35 degrees."""
    turn = wrap(now.blocks[colour].yaw - before.blocks[colour].yaw)
    return bool(turn > np.radians(35) and now.blocks[colour].position[2] < 1.5 * HALF_BLOCK)


def _is_in_drawer(colour: str, before: State, now: State) -> bool:  # noqa: ARG001
    """Return whether a block is released inside the open drawer."""
    x, y, z = now.blocks[colour].position
    front = DRAWER[1] - now.drawer
    return bool(
        abs(x - DRAWER[0]) < 0.05 and front < y < front + 0.11 and z < 0.045 and now.held is None
    )


def _is_stacked(colour: str, below: str, before: State, now: State) -> bool:  # noqa: ARG001
    """Return whether a block is released on top of another block."""
    offset = now.blocks[colour].position - now.blocks[below].position
    is_above = np.linalg.norm(offset[:2]) < 1.3 * HALF_BLOCK
    touches = abs(offset[2] - 2 * HALF_BLOCK) < 0.006
    return bool(is_above and touches and now.held is None and now.opening > 0.05)


def _is_drawer_opened(before: State, now: State) -> bool:
    return before.drawer < 0.03 and now.drawer > 0.075


def _is_drawer_closed(before: State, now: State) -> bool:
    return before.drawer > 0.06 and now.drawer < 0.02


def _is_slid(direction: int, before: State, now: State) -> bool:
    return direction * before.slider < -0.02 and direction * now.slider > 0.025


def _is_switched(on: bool, before: State, now: State) -> bool:
    return before.lamp != on and now.lamp == on


# ---------------------------------------------------------------------------------------- the tasks


def _task(kind: str, name: str, max_steps: int, colour: str = "", below: str = "") -> Task:
    texts = tuple(text.format(c=colour, b=below) for text in INSTRUCTIONS[kind])
    return Task(name, texts[:-HELD_OUT], max_steps, held_out=texts[-HELD_OUT:], tier=kind)


def _lift(colour: str) -> TabletopTask:
    task = _task("lift", f"lift_{colour}", 60, colour)
    return TabletopTask(
        task, partial(_is_lifted, colour), partial(experts.lift, colour), blocks=(colour,)
    )


def _push(colour: str, side: str, sign: int) -> TabletopTask:
    task = _task(f"push_{side}", f"push_{colour}_{side}", 60, colour)
    expert = experts.pushing(partial(experts.block_position, colour), (sign, 0.0, 0.0))
    return TabletopTask(
        task, partial(_is_pushed, colour, sign), expert, blocks=(colour,), pushes=True
    )


def _rotate(colour: str) -> TabletopTask:
    task = _task("rotate", f"rotate_{colour}", 80, colour)
    return TabletopTask(
        task, partial(_is_rotated, colour), partial(experts.rotate, colour), blocks=(colour,)
    )


def _place(colour: str) -> TabletopTask:
    return TabletopTask(
        _task("place", f"place_{colour}_in_drawer", 100, colour),
        partial(_is_in_drawer, colour),
        partial(experts.place, colour),
        needs={"drawer": DRAWER_TRAVEL, "room": 1.0},
        leaves={"room": 0.0},
        blocks=(colour,),
        uses_up=True,
    )


def _stack(colour: str, below: str) -> TabletopTask:
    return TabletopTask(
        _task("stack", f"stack_{colour}_on_{below}", 100, colour, below),
        partial(_is_stacked, colour, below),
        partial(experts.stack, colour, below),
        blocks=(colour, below),
        uses_up=True,
    )


def _open_drawer() -> TabletopTask:
    task = _task("open_drawer", "open_drawer", 80)
    return TabletopTask(
        task, _is_drawer_opened, experts.pull, {"drawer": 0.0}, {"drawer": DRAWER_TRAVEL}
    )


def _close_drawer() -> TabletopTask:
    task = _task("close_drawer", "close_drawer", 80)
    expert = experts.pushing(experts.handle_front, (0.0, 1.0, 0.0), gap=0.045)
    return TabletopTask(task, _is_drawer_closed, expert, {"drawer": DRAWER_TRAVEL}, {"drawer": 0.0})


def _slide(side: str, sign: int) -> TabletopTask:
    task = _task(f"slide_{side}", f"slide_{side}", 80)
    expert = experts.pushing(experts.slider_post, (sign, 0.0, 0.0), gap=0.045)
    needs, leaves = {"slider": -sign * SLIDER_END}, {"slider": sign * SLIDER_END}
    return TabletopTask(task, partial(_is_slid, sign), expert, needs, leaves)


def _switch(name: str, on: bool) -> TabletopTask:
    expert = partial(experts.press, BUTTON)
    needs, leaves = {"lamp": float(not on)}, {"lamp": float(on)}
    return TabletopTask(_task(name, name, 80), partial(_is_switched, on), expert, needs, leaves)


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
    ]


TASKS: Mapping[str, TabletopTask] = {task.task.name: task for task in _all_tasks()}
