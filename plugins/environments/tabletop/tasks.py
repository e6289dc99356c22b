"""The tasks: how each is asked for, when it is possible, when it is done, and who demonstrates it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from core.environments import Task
from plugins.environments.tabletop import experts
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

Oracle = Callable[[State, State], bool]  # before, now


@dataclass(frozen=True)
class TabletopTask:
    """A task of the table.

    task: its name and phrasings.
    done: whether it is done, from the state before and the present one.
    expert: who demonstrates it.
    needs, leaves: the fixtures before and after, {"drawer": DRAWER_TRAVEL} for example: "drawer"
        and "slider" in metres, "lamp", and "room", whether the drawer has some.
    blocks: the block that it moves, and the one that it is stacked on.
    pushes: it needs a free lane to either side of the block.
    uses_up: its blocks do not stand free on the table afterwards.
    """

    task: Task
    done: Oracle
    expert: experts.Expert
    needs: Mapping[str, float] = field(default_factory=dict)
    leaves: Mapping[str, float] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    pushes: bool = False
    uses_up: bool = False


def _lifted(colour: str, before: State, now: State) -> bool:
    rise = now.blocks[colour].position[2] - min(before.blocks[colour].position[2], HALF_BLOCK)
    return bool(now.held == colour and rise > 0.05)


def _pushed(colour: str, direction: int, before: State, now: State) -> bool:
    """By four centimetres, on the table, and not by another block that was pushed into it and moved
    further.
    """
    moved = {
        c: direction * (block.position[0] - before.blocks[c].position[0])
        for c, block in now.blocks.items()
    }
    stands = now.blocks[colour].position[2] < 1.5 * HALF_BLOCK
    return bool(stands and moved[colour] > 0.04 and moved[colour] == max(moved.values()))


def _rotated(colour: str, before: State, now: State) -> bool:
    """By 35 degrees counter-clockwise, on the table."""
    turn = wrap(now.blocks[colour].yaw - before.blocks[colour].yaw)
    return bool(turn > np.radians(35) and now.blocks[colour].position[2] < 1.5 * HALF_BLOCK)


def _in_drawer(colour: str, before: State, now: State) -> bool:  # noqa: ARG001
    """Let go of, inside the open drawer."""
    x, y, z = now.blocks[colour].position
    front = DRAWER[1] - now.drawer
    return bool(
        abs(x - DRAWER[0]) < 0.05 and front < y < front + 0.11 and z < 0.045 and now.held is None
    )


def _stacked(colour: str, below: str, before: State, now: State) -> bool:  # noqa: ARG001
    """Let go of, one on the other."""
    offset = now.blocks[colour].position - now.blocks[below].position
    on_top = (
        np.linalg.norm(offset[:2]) < 1.3 * HALF_BLOCK and abs(offset[2] - 2 * HALF_BLOCK) < 0.006
    )
    return bool(on_top and now.held is None and now.opening > 0.05)


def _drawer_opened(before: State, now: State) -> bool:
    return before.drawer < 0.03 and now.drawer > 0.075


def _drawer_closed(before: State, now: State) -> bool:
    return before.drawer > 0.06 and now.drawer < 0.02


def _slid(direction: int, before: State, now: State) -> bool:
    return direction * before.slider < -0.02 and direction * now.slider > 0.025


def _switched(on: bool, before: State, now: State) -> bool:
    return before.lamp != on and now.lamp == on


# ---------------------------------------------------------------------------------------- phrasings

_PHRASES = {  # the last two are kept for evaluation
    "lift": (
        "lift the {c} block",
        "pick up the {c} block",
        "grasp the {c} cube and lift it up",
        "take the {c} block off the table",
        "raise the {c} cube",
        "grab the {c} block and lift it",
        "lift up the {c} cube",
        "pick the {c} cube up off the table",
    ),
    "push_left": (
        "push the {c} block to the left",
        "slide the {c} block left",
        "move the {c} cube to the left",
        "push the {c} cube left",
        "shove the {c} block to the left",
        "nudge the {c} cube leftwards",
        "slide the {c} cube to the left",
        "move the {c} block left",
    ),
    "push_right": (
        "push the {c} block to the right",
        "slide the {c} block right",
        "move the {c} cube to the right",
        "push the {c} cube right",
        "shove the {c} block to the right",
        "nudge the {c} cube rightwards",
        "slide the {c} cube to the right",
        "move the {c} block right",
    ),
    "rotate": (
        "rotate the {c} block",
        "turn the {c} block",
        "turn the {c} cube counter-clockwise",
        "rotate the {c} cube to the left in place",
        "grasp the {c} block and turn it",
        "twist the {c} cube",
        "turn the {c} cube around",
        "grasp the {c} cube and rotate it",
    ),
    "place": (
        "put the {c} block in the drawer",
        "place the {c} block into the drawer",
        "store the {c} cube in the drawer",
        "drop the {c} cube into the open drawer",
        "put the {c} cube away in the drawer",
        "pick up the {c} block and place it in the drawer",
        "place the {c} cube in the drawer",
        "drop the {c} block in the drawer",
    ),
    "stack": (
        "stack the {c} block on the {b} block",
        "put the {c} block on top of the {b} block",
        "place the {c} cube on the {b} cube",
        "set the {c} cube on top of the {b} cube",
        "pick up the {c} block and stack it on the {b} one",
        "build a tower with the {c} block on the {b} block",
        "stack the {c} cube on top of the {b} cube",
        "put the {c} cube on the {b} block",
    ),
    "open_drawer": (
        "open the drawer",
        "pull the drawer open",
        "pull the handle of the drawer",
        "pull out the drawer",
        "grasp the handle and open the drawer",
        "slide the drawer open",
        "pull open the drawer",
        "open the drawer by its handle",
    ),
    "close_drawer": (
        "close the drawer",
        "push the drawer shut",
        "shut the drawer",
        "push the drawer closed",
        "push the handle of the drawer in",
        "slide the drawer shut",
        "push the drawer in",
        "shut the drawer by its handle",
    ),
    "slide_left": (
        "slide the white post to the left",
        "push the slider to the left",
        "move the white slider left",
        "slide the post left along its rail",
        "push the white post left",
        "move the slider to the left end",
        "slide the slider left",
        "push the post to the left",
    ),
    "slide_right": (
        "slide the white post to the right",
        "push the slider to the right",
        "move the white slider right",
        "slide the post right along its rail",
        "push the white post right",
        "move the slider to the right end",
        "slide the slider right",
        "push the post to the right",
    ),
    "switch_on": (
        "turn on the lamp",
        "switch the light on",
        "press the button to turn on the lamp",
        "turn the light on",
        "light the lamp",
        "push the button to switch the light on",
        "switch on the lamp",
        "press the button to turn the light on",
    ),
    "switch_off": (
        "turn off the lamp",
        "switch the light off",
        "press the button to turn off the lamp",
        "turn the light off",
        "put out the lamp",
        "push the button to switch the light off",
        "switch off the lamp",
        "press the button to turn the light off",
    ),
}
_HELD_OUT = 2


def _task(kind: str, name: str, max_steps: int, colour: str = "", below: str = "") -> Task:
    phrases = tuple(phrase.format(c=colour, b=below) for phrase in _PHRASES[kind])
    return Task(name, phrases[:-_HELD_OUT], max_steps, held_out=phrases[-_HELD_OUT:], tier=kind)


# ---------------------------------------------------------------------------------------- the tasks


def _lift(colour: str) -> TabletopTask:
    task = _task("lift", f"lift_{colour}", 60, colour)
    return TabletopTask(
        task, partial(_lifted, colour), partial(experts.lift, colour), blocks=(colour,)
    )


def _push(colour: str, side: str, sign: int) -> TabletopTask:
    task = _task(f"push_{side}", f"push_{colour}_{side}", 60, colour)
    expert = experts.pushing(partial(experts.block_position, colour), (sign, 0.0, 0.0))
    return TabletopTask(task, partial(_pushed, colour, sign), expert, blocks=(colour,), pushes=True)


def _rotate(colour: str) -> TabletopTask:
    task = _task("rotate", f"rotate_{colour}", 80, colour)
    return TabletopTask(
        task, partial(_rotated, colour), partial(experts.rotate, colour), blocks=(colour,)
    )


def _place(colour: str) -> TabletopTask:
    return TabletopTask(
        _task("place", f"place_{colour}_in_drawer", 100, colour),
        partial(_in_drawer, colour),
        partial(experts.place, colour),
        needs={"drawer": DRAWER_TRAVEL, "room": 1.0},
        leaves={"room": 0.0},
        blocks=(colour,),
        uses_up=True,
    )


def _stack(colour: str, below: str) -> TabletopTask:
    return TabletopTask(
        _task("stack", f"stack_{colour}_on_{below}", 100, colour, below),
        partial(_stacked, colour, below),
        partial(experts.stack, colour, below),
        blocks=(colour, below),
        uses_up=True,
    )


def _open_drawer() -> TabletopTask:
    task = _task("open_drawer", "open_drawer", 80)
    return TabletopTask(
        task, _drawer_opened, experts.pull, {"drawer": 0.0}, {"drawer": DRAWER_TRAVEL}
    )


def _close_drawer() -> TabletopTask:
    task = _task("close_drawer", "close_drawer", 80)
    expert = experts.pushing(experts.handle_front, (0.0, 1.0, 0.0), gap=0.045)
    return TabletopTask(task, _drawer_closed, expert, {"drawer": DRAWER_TRAVEL}, {"drawer": 0.0})


def _slide(side: str, sign: int) -> TabletopTask:
    task = _task(f"slide_{side}", f"slide_{side}", 80)
    expert = experts.pushing(experts.slider_post, (sign, 0.0, 0.0), gap=0.045)
    needs, leaves = {"slider": -sign * SLIDER_END}, {"slider": sign * SLIDER_END}
    return TabletopTask(task, partial(_slid, sign), expert, needs, leaves)


def _switch(name: str, on: bool) -> TabletopTask:
    expert = partial(experts.press, BUTTON)
    needs, leaves = {"lamp": float(not on)}, {"lamp": float(on)}
    return TabletopTask(_task(name, name, 80), partial(_switched, on), expert, needs, leaves)


def _all() -> list[TabletopTask]:
    below = dict(
        zip(COLOURS, (*COLOURS[1:], COLOURS[0]), strict=True)
    )  # each colour is stacked on the next
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


TASKS: Mapping[str, TabletopTask] = {task.task.name: task for task in _all()}
