"""Tasks that nobody can do from the present frame, nor from the last eight: they need memory.

What has to be remembered, the cue, is an answer out of a few. Each task is built so that no later
frame tells the cue again. The comment of each task says why.

- While the cue is shown, the expert waits in a pose that is the same for every answer, and it goes
  on waiting until the cue is at least PAUSE frames old. So the hand's pose tells nothing. (Where
  the cue is a count, no wait is needed after the last press or blink, because all look alike.)
- The cue is drawn independently of where everything is.
- A visible sign, the lamp, says when the wait is over. So a policy without memory fails for want of
  the cue, not because it cannot count frames. (In `press_after_second_blink`, the sign is the cue.)
- The first answer counts, so that a policy cannot try one after the other.
"""

from dataclasses import replace

import numpy as np

from plugins.environments.tabletop import experts, oracles
from plugins.environments.tabletop.definition import MEMORY, MemoryRules, TabletopTask, make_task
from plugins.environments.tabletop.scene import (
    BUTTON,
    COLOURS,
    HALF_BLOCK,
    Block,
    Start,
    State,
)
from plugins.environments.tabletop.shows import Show

PAUSE = 12  # moments between the end of a cue and the sign that ends the wait
# moments for which a block is held in the middle; in the first eight it comes to rest
HOLD = PAUSE + 8

SHINE = 8  # moments for which the lamp shows a block's colour

# how far the drawer opens in a show, in metres; it must not reach the blocks
SHOWN_DRAWER = 0.06
REST, STROKE = 2, 4  # moments before a fixture moves, and moments in which it moves out or back

BLINK = 5  # moments for which the lamp is bright
SHORTEST_GAP, LONGEST_GAP = 12, 35  # limits of the moments before each of the first two blinks
PRESS_TIME = 60  # moments between the second blink and the third, in which the press must come

# minimum distance between blocks' centres, and to the free place: room for open fingers
FREE_RADIUS = 0.09
PLACE_SPREAD = np.array([0.01, 0.015])  # maximum distance of a block from its place, x and y


def memory_tasks() -> list[TabletopTask]:
    """Return the tasks that need memory; their order must not change, seeds depend on it."""
    return [
        _press_three_times(),
        _lift_shown(),
        _put_back(),
        _move_first_again(),
        _press_after_second_blink(),
    ]


def _is_answered(before: State, now: State) -> bool:  # noqa: ARG001
    """Return whether the gripper's answer is what the show told."""
    return now.past.choice == now.past.show.answer


# ----------------------------------------------------------------------------- counting the presses


def _press_three_times() -> TabletopTask:
    """Press the button exactly three times and leave.

    The cue is the number of presses so far. The hand takes the same way down to the button before
    every press and the same way up beside it after every press, and leaves only from there. Two
    presses are eight frames apart or more. The lamp changes with every press, but does not tell
    the number, because it is on or off at random when the task begins.
    """
    rules = MemoryRules(prepare=_without_show, choose=_never)
    return TabletopTask(
        make_task("press_three_times", "press_three_times", 120, MEMORY),
        _is_pressed_three_times,
        experts.press_three_times,
        memory=rules,
    )


def _is_pressed_three_times(before: State, now: State) -> bool:  # noqa: ARG001
    """Return whether the hand is clear of a button that was pressed exactly three times."""
    is_clear = np.linalg.norm(now.tcp[:2] - BUTTON) > 0.08 and now.tcp[2] > 0.07
    return bool(now.past.presses == 3 and is_clear)


def _without_show(start: Start, random: np.random.Generator) -> tuple[Start, Show]:  # noqa: ARG001
    return start, Show()


def _never(state: State) -> str | None:  # noqa: ARG001
    return None


# --------------------------------------------------------------------------- the colour of the lamp


def _lift_shown() -> TabletopTask:
    """Lift the block whose colour the lamp shows for the first frames.

    Afterwards the lamp is bright for PAUSE frames, while the hand waits; when it is dark, the hand
    goes to the block. The three blocks stand as for any other task.
    """
    rules = MemoryRules(prepare=_show_colour, choose=_lifted_block)
    return TabletopTask(
        make_task("lift_shown", "lift_shown", 120, MEMORY),
        _is_answered,
        experts.lift_shown,
        memory=rules,
    )


def _show_colour(start: Start, random: np.random.Generator) -> tuple[Start, Show]:
    colour = str(random.choice(COLOURS))
    lamp = (*[colour] * SHINE, *["bright"] * PAUSE, "dark")
    return start, Show(colour, SHINE + PAUSE, lamp)


def _lifted_block(state: State) -> str | None:
    """Return the colour of the block that is held five centimetres above the table."""
    block = state.blocks.get(str(state.held))
    return state.held if block is not None and block.position[2] - HALF_BLOCK > 0.05 else None


# ------------------------------------------------------------------------ where the block came from


def _put_back() -> TabletopTask:
    """Hold the red block above the middle, and put it back on the side it came from.

    The show goes on only while the block is held above the middle. After HOLD frames the lamp
    becomes bright, and the block may go back. By then the hand has been at rest for more than eight
    frames, in a pose that is the same for both sides. The place on the other side is free, too, so
    the other blocks do not tell.
    """
    rules = MemoryRules(prepare=_take_side, choose=_chosen_side, goes_on=_is_held_in_the_middle)
    return TabletopTask(
        make_task("put_back", "put_back", 140, MEMORY), _is_put_back, experts.put_back, memory=rules
    )


def _take_side(start: Start, random: np.random.Generator) -> tuple[Start, Show]:
    """Put the red block near the left place or the right one, and the others near neither."""
    spread = random.uniform(-PLACE_SPREAD, PLACE_SPREAD)
    places = {
        side: place + spread * np.array([np.sign(place[0]), 1.0])
        for side, place in experts.PLACES.items()
    }
    others = _draw_others(list(places.values()), random)
    side = str(random.choice([*places]))
    positions = dict(zip(COLOURS, [places[side], *others], strict=True))
    blocks = {
        colour: Block(np.array([*position, HALF_BLOCK]), start.blocks[colour].yaw)
        for colour, position in positions.items()
    }
    fixtures = {**start.fixtures, "lamp": 0.0}
    lamp = (*["dark"] * HOLD, "bright")
    return replace(start, blocks=blocks, fixtures=fixtures), Show(side, HOLD, lamp)


def _draw_others(taken: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Draw the positions (2 2) of the green and the blue block: apart, and away from `taken`."""
    while True:
        points = random.uniform([-0.06, -0.19], [0.06, -0.05], (2, 2))
        gaps = [np.linalg.norm(point - other) for point in points for other in taken]
        if min(*gaps, np.linalg.norm(points[0] - points[1])) > FREE_RADIUS:
            return points


def _is_held_in_the_middle(state: State) -> bool:
    offset = state.tcp[:2] - experts.MIDDLE
    is_high = state.blocks["red"].position[2] > 0.08
    return bool(state.held == "red" and is_high and np.linalg.norm(offset) < 0.02)


def _chosen_side(state: State) -> str | None:
    """Return the side on which the block is put down after the wait."""
    x, _, z = state.blocks["red"].position
    is_released = state.held is None and state.opening > 0.05 and z < 1.2 * HALF_BLOCK
    if state.past.is_waiting or not is_released:
        return None
    return "left" if x < 0 else "right"


def _is_put_back(before: State, now: State) -> bool:
    """Return whether the block lies where it was, to four centimetres."""
    moved = now.blocks["red"].position - before.blocks["red"].position
    return _is_answered(before, now) and bool(np.linalg.norm(moved) < 0.04)


# -------------------------------------------------------------------------- which fixture was first


def _move_first_again() -> TabletopTask:
    """Move the fixture, drawer or slider, that moved first by itself.

    Each moves out and back, so both end where they began. The lamp is bright from the beginning
    until PAUSE frames after the movements, while the hand waits.
    """
    rules = MemoryRules(prepare=_show_motions, choose=_moved_fixture)
    return TabletopTask(
        make_task("move_first_again", "move_first_again", 120, MEMORY),
        _is_moved_again,
        experts.move_first_again,
        needs={"drawer": 0.0},
        memory=rules,
    )


def _show_motions(start: Start, random: np.random.Generator) -> tuple[Start, Show]:
    end = start.fixtures["slider"]
    strokes = {"drawer": _stroke(0.0, SHOWN_DRAWER), "slider": _stroke(end, -end)}
    first, second = (str(name) for name in random.permutation([*strokes]))
    still = {name: (stroke[0],) * len(stroke) for name, stroke in strokes.items()}
    motions = {
        first: strokes[first] + still[first],
        second: still[second] + strokes[second],
    }
    go = len(motions[first]) + PAUSE
    answer = "open_drawer" if first == "drawer" else f"slide_{'right' if end < 0 else 'left'}"
    return start, Show(answer, go, (*["bright"] * go, "dark"), motions)


def _stroke(begin: float, end: float) -> tuple[float, ...]:
    """Return positions: at rest at `begin`, out to `end`, and back again."""
    out = np.linspace(begin, end, STROKE + 1)
    return tuple(float(x) for x in (*[begin] * REST, *out, *out[::-1]))


def _moved_fixture(state: State) -> str | None:
    """Return the task that the gripper has begun after the wait, or None."""
    if state.past.is_waiting:
        return None
    end = state.past.show.motions["slider"][0]
    if abs(state.slider - end) > 0.02:
        return f"slide_{'right' if end < 0 else 'left'}"
    return "open_drawer" if state.drawer > 0.02 else None


def _is_moved_again(before: State, now: State) -> bool:
    """Return whether the right fixture was moved before the other one, and all the way."""
    if not _is_answered(before, now):
        return False
    if now.past.show.answer == "open_drawer":
        return oracles.is_drawer_opened(before, now)
    return oracles.is_slid(1 if before.slider < 0 else -1, before, now)


# --------------------------------------------------------------------------- after the second blink


def _press_after_second_blink() -> TabletopTask:
    """Press the button after the lamp's second blink and before its third.

    The hand waits in the same place before, between and after the blinks, and each gap is longer
    than eight frames. The third blink comes so that waiting for long is no way to succeed.
    """
    rules = MemoryRules(prepare=_show_blinks, choose=_press_of_the_button)
    longest = 2 * (LONGEST_GAP + BLINK) + PRESS_TIME
    return TabletopTask(
        make_task("press_after_second_blink", "press_after_second_blink", longest, MEMORY),
        _is_answered,
        experts.press_after_show,
        memory=rules,
    )


def _show_blinks(start: Start, random: np.random.Generator) -> tuple[Start, Show]:
    lamp: list[str] = []
    for gap in random.integers(SHORTEST_GAP, LONGEST_GAP, size=2, endpoint=True):
        lamp += ["dark"] * int(gap) + ["bright"] * BLINK
    return start, Show(
        "in time", len(lamp), (*lamp, *["dark"] * PRESS_TIME, *["bright"] * BLINK, "dark")
    )


def _press_of_the_button(state: State) -> str | None:
    """Return whether the button was pressed "early", "in time" or "late"; None before the press."""
    if state.past.presses == 0:
        return None
    if state.past.is_waiting:
        return "early"
    return "in time" if state.past.moment < state.past.show.go + PRESS_TIME else "late"
