"""Scripted experts, which compute the action from the present state alone.

The state contains `past`, which cameras do not show: what a task depends on that has happened.

Because they follow no fixed plan, the experts recover from disturbances. The gripper rises before
it travels, and comes down only when it is near its target. Distances are in metres.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from plugins.environments.tabletop.scene import (
    BUTTON,
    BUTTON_DOWN,
    DRAWER_ROOM,
    HALF_BLOCK,
    ROTATION,
    TRANSLATION,
    State,
    wrap,
)

Expert = Callable[[State], np.ndarray]

OPEN, CLOSED = 1.0, -1.0
HOVER = 0.085  # minimum height of the tcp when travelling; tcp: the point between the fingertips
CLEARANCE = 0.045  # minimum height of the tcp above the highest block's centre when travelling
CARRY = 0.115  # height of the tcp when carrying a block
NEAR = 0.008  # maximum horizontal distance from the target at which the gripper acts
# where the hand waits during a show: in a corner, in which it hides nothing from the cameras
WAITING = np.array([0.18, -0.18, 0.13])
# where a block comes from and is put back, and the middle between these places (2)
PLACES: Mapping[str, np.ndarray] = {
    "left": np.array([-0.12, -0.12]),
    "right": np.array([0.12, -0.12]),
}
MIDDLE = np.array([0.0, -0.12])
AWAY = np.array([-0.02, 0.0, 0.13])  # where the hand goes when it leaves the button
ALIGNED = 0.08  # maximum difference from the target's yaw, in radians, at which the gripper acts


def lift(colour: str, state: State) -> np.ndarray:
    """Grasp a block and raise it."""
    if state.held == colour:
        return _move(state, state.tcp + np.array([0, 0, 0.04]), state.euler[2], CLOSED)
    return _grasp(state, colour)


def rotate(colour: str, state: State) -> np.ndarray:
    """Grasp a block and turn it counter-clockwise where it stands."""
    if state.held == colour:
        # the block may have been raised by accident
        height = state.blocks[colour].position[2] - HALF_BLOCK
        return _move(state, state.tcp - np.array([0, 0, height]), state.euler[2] + 0.1, CLOSED)
    return _grasp(state, colour)


def place(colour: str, state: State) -> np.ndarray:
    """Carry a block to the open drawer and release it there."""
    if state.held != colour:
        return _grasp(state, colour)
    return _put_down(state, np.array([*DRAWER_ROOM, 0.036]))


def stack(colour: str, below: str, state: State) -> np.ndarray:
    """Carry a block onto another block."""
    if state.held != colour:
        return _grasp(state, colour)
    return _put_down(state, state.blocks[below].position + np.array([0, 0, 2 * HALF_BLOCK + 0.003]))


def push(
    locate: Callable[[State], np.ndarray], direction: np.ndarray, gap: float, state: State
) -> np.ndarray:
    """Push a thing along a horizontal direction (3) with closed fingers.

    locate: function that returns the position of the thing's middle (3).
    gap: distance behind the thing's middle at which the push begins.
    """
    if state.held is not None:
        return _release(state)
    target = locate(state)
    behind = target - gap * direction
    offset = state.tcp - behind
    along = offset @ direction
    across = np.linalg.norm(offset[:2] - along * direction[:2])
    if -0.01 < along < gap and across < 0.012 and state.tcp[2] < target[2] + 0.012:
        step = target + direction * 0.02
        return _move(state, np.where(np.abs(direction) > 0, step, target), 0.0, CLOSED)
    return _approach(state, behind, 0.0, CLOSED)


def pull(state: State) -> np.ndarray:
    """Grasp the drawer's handle and pull it open."""
    if state.held == "handle":
        return _move(state, state.tcp + np.array([0, -0.03, 0]), 0.0, CLOSED)
    if state.held is not None:
        return _release(state)
    return _grip(state, state.handle, 0.0)


def press(position: np.ndarray, state: State) -> np.ndarray:
    """Press the button at position (2) from above with closed fingers.

    If the button is already down, rise first.
    """
    if state.held is not None:
        return _release(state)
    if state.button > BUTTON_DOWN - 0.001:
        return _move(state, np.array([*position, 0.1]), 0.0, CLOSED)
    return _approach(state, np.array([*position, 0.035]), 0.0, CLOSED)


def pushing(
    locate: Callable[[State], np.ndarray], direction: tuple[float, float, float], gap: float = 0.05
) -> Expert:
    """Return `push` with fixed arguments, as a function of the state alone."""
    return partial(push, locate, np.array(direction), gap)


def block_position(colour: str, state: State) -> np.ndarray:
    """Return the middle of a block, for `push`."""
    return state.blocks[colour].position


def handle_front(state: State) -> np.ndarray:
    """Return the middle of the handle, for `push`."""
    return state.handle


def slider_post(state: State) -> np.ndarray:
    """Return the middle of the slider's post, for `push`."""
    return state.post


# -------------------------------------------------------------------------- tasks that need memory


def press_three_times(state: State) -> np.ndarray:
    """Press the button three times and leave it.

    After each press the hand slides off the button towards the viewer and rises there. So its place
    shows whether it is on the way down or up, but not how often it has pressed.
    """
    if state.held is not None:
        return _release(state)
    beside = np.array([BUTTON[0], BUTTON[1] - 0.04])
    distance = np.linalg.norm(state.tcp[:2] - BUTTON)
    if state.button > BUTTON_DOWN - 0.001:
        return _move(state, np.array([*beside, state.tcp[2]]), 0.0, CLOSED)
    if distance > 0.012 and state.tcp[2] < 0.075:
        return _move(state, np.array([*beside, 0.1]), 0.0, CLOSED)
    if state.past.presses >= 3:
        return _move(state, AWAY, 0.0, CLOSED)
    if distance > 0.012:
        return _approach(state, np.array([*BUTTON, HOVER]), 0.0, CLOSED)
    return _move(state, np.array([*BUTTON, 0.03]), 0.0, CLOSED)


def lift_shown(state: State) -> np.ndarray:
    """Wait, then lift the block whose colour the lamp has shown."""
    if state.past.is_waiting:
        return _wait(state)
    return lift(state.past.show.answer, state)


def put_back(state: State) -> np.ndarray:
    """Hold the red block above the middle, then put it back on its side."""
    if state.held != "red":
        return _grasp(state, "red")
    if state.past.is_waiting:
        return _carry(state, MIDDLE)
    place = PLACES[state.past.show.answer]
    return _put_down(state, np.array([*place, HALF_BLOCK + 0.003]))


def move_first_again(state: State) -> np.ndarray:
    """Wait, then move the fixture that has moved first."""
    if state.past.is_waiting:
        return _wait(state)
    if state.past.show.answer == "open_drawer":
        return pull(state)
    direction = 1.0 if state.past.show.answer == "slide_right" else -1.0
    return push(slider_post, np.array([direction, 0.0, 0.0]), 0.045, state)


def press_after_show(state: State) -> np.ndarray:
    """Wait, then press the button."""
    return _wait(state) if state.past.is_waiting else press(BUTTON, state)


# ---------------------------------------------------------------------------------------- movements


def _wait(state: State) -> np.ndarray:
    """Go to the place where the hand waits, or stay there."""
    return _move(state, WAITING, 0.0, OPEN)


def _grasp(state: State, colour: str) -> np.ndarray:
    """Grasp a block; let go of anything else first."""
    if state.held is not None:
        return _release(state)
    block = state.blocks[colour]
    quarter = np.pi / 2  # a cube looks the same after a quarter turn
    yaw = (block.yaw + quarter / 2) % quarter - quarter / 2
    return _grip(state, block.position, yaw)


def _grip(state: State, target: np.ndarray, yaw: float) -> np.ndarray:
    """Lower the open fingers around the target (3) and close them."""
    offset = np.linalg.norm(state.tcp[:2] - target[:2])
    is_aligned = offset < NEAR and abs(wrap(yaw - state.euler[2])) < ALIGNED
    if is_aligned and state.tcp[2] < target[2] + 0.008:
        return _move(state, target, yaw, CLOSED)
    return _approach(state, target, yaw, OPEN)


def _approach(state: State, target: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
    """Come to the target (3) from above: rise before travelling, descend only near the target."""
    distance = float(np.linalg.norm(state.tcp[:2] - target[:2]))
    yaw_error = float(abs(wrap(yaw - state.euler[2])))
    hover = max(HOVER, max(block.position[2] for block in state.blocks.values()) + CLEARANCE)
    height = target[2] + min(
        hover - target[2], 3 * max(0.0, distance - 0.006) + 0.3 * max(0.0, yaw_error - 0.06)
    )
    goal = np.array([target[0], target[1], height])
    if distance > 0.02:
        # fingers that are still too low travel more slowly, so that they do not hit anything
        clear = 1.0
        if state.tcp[2] < height:
            clear = np.clip((state.tcp[2] - hover + 0.04) / 0.025, 0.0, 1.0)
        goal[:2] = state.tcp[:2] + (target[:2] - state.tcp[:2]) * clear
        if clear < 0.5:
            # leave the fingers as they are: something may be between them or next to them
            gripper = OPEN if state.opening > 0.03 else CLOSED
    return _move(state, goal, yaw, gripper)


def _put_down(state: State, target: np.ndarray) -> np.ndarray:
    """Carry the held block until its middle is at the target (3), and open the fingers there."""
    distance = np.linalg.norm(state.tcp[:2] - target[:2])
    if distance < NEAR and state.tcp[2] < target[2] + 0.006:
        return _move(state, state.tcp, 0.0, OPEN)
    if distance < NEAR:
        return _move(state, target, 0.0, CLOSED)
    return _carry(state, target[:2])


def _carry(state: State, position: np.ndarray) -> np.ndarray:
    """Carry the held block above a position (2): rise before travelling."""
    clear = np.clip((state.tcp[2] - 0.085) / 0.02, 0.0, 1.0)
    goal = np.array([*(state.tcp[:2] + (position - state.tcp[:2]) * clear), CARRY])
    return _move(state, goal, 0.0, CLOSED)


def _release(state: State) -> np.ndarray:
    """Open the fingers; a held block is put down first."""
    block = state.blocks.get(str(state.held))
    if block is not None and block.position[2] > HALF_BLOCK + 0.012:
        return _move(state, state.tcp - np.array([0, 0, 0.02]), state.euler[2], CLOSED)
    return _move(state, state.tcp, state.euler[2], OPEN)


def _move(state: State, goal: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
    """Return the action (7) that moves one step towards the upright pose at `goal` with `yaw`."""
    translation = 0.9 * (goal - state.tcp) / TRANSLATION
    rotation = wrap(np.array([0.0, 0.0, yaw]) - state.euler) / ROTATION
    action = np.concatenate([translation, 0.9 * rotation, [gripper]])
    clipped: np.ndarray = np.clip(action, -1.0, 1.0).astype(np.float32)
    return clipped
