"""Scripted demonstrators: an action as a function of the present state alone, so that they recover
from disturbances.

Each skill moves in funnels: the gripper comes down to an object only as fast as it comes near it,
and rises before it travels. Distances in metres.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from plugins.environments.tabletop.scene import (
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
HOVER = 0.085  # lowest height of the fingertips' middle when travelling
CLEARANCE = 0.045  # of the fingertips' middle above the middle of the highest block
CARRY = 0.115  # the same with a block in the gripper
NEAR = 0.008  # horizontal distance within which the gripper may act
ALIGNED = 0.08  # radians


def lift(colour: str, state: State) -> np.ndarray:
    """Grasp a block and raise it."""
    if state.held == colour:
        return _move(state, state.tcp + np.array([0, 0, 0.04]), state.euler[2], CLOSED)
    return _grasp(state, colour)


def rotate(colour: str, state: State) -> np.ndarray:
    """Grasp a block and turn it counter-clockwise where it stands."""
    if state.held == colour:
        height = state.blocks[colour].position[2] - HALF_BLOCK  # noise may have raised it
        return _move(state, state.tcp - np.array([0, 0, height]), state.euler[2] + 0.1, CLOSED)
    return _grasp(state, colour)


def place(colour: str, state: State) -> np.ndarray:
    """Carry a block to the open drawer and let it go there."""
    if state.held != colour:
        return _grasp(state, colour)
    return _put_down(state, np.array([*DRAWER_ROOM, 0.036]))


def stack(colour: str, below: str, state: State) -> np.ndarray:
    """Carry a block onto another."""
    if state.held != colour:
        return _grasp(state, colour)
    return _put_down(state, state.blocks[below].position + np.array([0, 0, 2 * HALF_BLOCK + 0.003]))


def push(
    thing: Callable[[State], np.ndarray], direction: np.ndarray, gap: float, state: State
) -> np.ndarray:
    """Push something along a horizontal direction (3) with closed fingers, from `gap` behind its
    middle.
    """
    if state.held is not None:
        return _release(state)
    goal = thing(state)
    behind = goal - gap * direction
    offset = state.tcp - behind
    along, across = (
        offset @ direction,
        np.linalg.norm(offset[:2] - (offset @ direction) * direction[:2]),
    )
    if -0.01 < along < gap and across < 0.012 and state.tcp[2] < goal[2] + 0.012:
        step = goal + direction * 0.02
        return _move(state, np.where(np.abs(direction) > 0, step, goal), 0.0, CLOSED)
    return _approach(state, behind, 0.0, CLOSED)


def pull(state: State) -> np.ndarray:
    """Grasp the drawer's handle and pull it open."""
    if state.held == "handle":
        return _move(state, state.tcp + np.array([0, -0.03, 0]), 0.0, CLOSED)
    if state.held is not None:
        return _release(state)
    return _grip(state, state.handle, 0.0)


def press(place: np.ndarray, state: State) -> np.ndarray:
    """Press the button from above with closed fingers; rise first where it is down already."""
    if state.held is not None:
        return _release(state)
    if state.button > BUTTON_DOWN - 0.001:
        return _move(state, np.array([*place, 0.1]), 0.0, CLOSED)
    return _approach(state, np.array([*place, 0.035]), 0.0, CLOSED)


def pushing(
    thing: Callable[[State], np.ndarray], direction: tuple[float, float, float], gap: float = 0.05
) -> Expert:
    """`push` as a function of the state alone."""
    return partial(push, thing, np.array(direction), gap)


def block_position(colour: str, state: State) -> np.ndarray:
    """Middle of a block, for `push`."""
    return state.blocks[colour].position


def handle_front(state: State) -> np.ndarray:
    """The end of the handle, for `push`."""
    return state.handle


def slider_post(state: State) -> np.ndarray:
    """The slider's post, for `push`."""
    return state.post


# ---------------------------------------------------------------------------------------- movements


def _grasp(state: State, colour: str) -> np.ndarray:
    """Take hold of a block; let go of anything else first."""
    if state.held is not None:
        return _release(state)
    block = state.blocks[colour]
    quarter = np.pi / 2
    yaw = (
        block.yaw + quarter / 2
    ) % quarter - quarter / 2  # a cube looks the same after a quarter turn
    return _grip(state, block.position, yaw)


def _grip(state: State, where: np.ndarray, yaw: float) -> np.ndarray:
    """Lower the open fingers around something and close them."""
    offset = np.linalg.norm(state.tcp[:2] - where[:2])
    aligned = offset < NEAR and abs(wrap(yaw - state.euler[2])) < ALIGNED
    if aligned and state.tcp[2] < where[2] + 0.008:
        return _move(state, where, yaw, CLOSED)
    return _approach(state, where, yaw, OPEN)


def _approach(state: State, where: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
    """Come to a place from above: rise before travelling, come down only when near."""
    offset = float(np.linalg.norm(state.tcp[:2] - where[:2]))
    turned = float(abs(wrap(yaw - state.euler[2])))
    hover = max(HOVER, max(block.position[2] for block in state.blocks.values()) + CLEARANCE)
    height = where[2] + min(
        hover - where[2], 3 * max(0.0, offset - 0.006) + 0.3 * max(0.0, turned - 0.06)
    )
    goal = np.array([where[0], where[1], height])
    if offset > 0.02:  # travel only as fast as the fingers are clear of what stands on the table
        clear = (
            np.clip((state.tcp[2] - hover + 0.04) / 0.025, 0.0, 1.0)
            if state.tcp[2] < height
            else 1.0
        )
        goal[:2] = state.tcp[:2] + (where[:2] - state.tcp[:2]) * clear
        if (
            clear < 0.5
        ):  # there may be something between the fingers, or beside them: neither grip nor kick it
            gripper = OPEN if state.opening > 0.03 else CLOSED
    return _move(state, goal, yaw, gripper)


def _put_down(state: State, where: np.ndarray) -> np.ndarray:
    """Carry what is held to a place (3) for its middle, and open the fingers there."""
    offset = np.linalg.norm(state.tcp[:2] - where[:2])
    if offset < NEAR and state.tcp[2] < where[2] + 0.006:
        return _move(state, state.tcp, 0.0, OPEN)
    if offset < NEAR:
        return _move(state, where, 0.0, CLOSED)
    clear = np.clip((state.tcp[2] - 0.085) / 0.02, 0.0, 1.0)
    goal = np.array([*(state.tcp[:2] + (where[:2] - state.tcp[:2]) * clear), CARRY])
    return _move(state, goal, 0.0, CLOSED)


def _release(state: State) -> np.ndarray:
    """Put down what is in the way, and open."""
    if (
        state.held in state.blocks
        and state.blocks[str(state.held)].position[2] > HALF_BLOCK + 0.012
    ):
        return _move(state, state.tcp - np.array([0, 0, 0.02]), state.euler[2], CLOSED)
    return _move(state, state.tcp, state.euler[2], OPEN)


def _move(state: State, goal: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
    """One step towards a pose, upright -> action (7)."""
    translation = 0.9 * (goal - state.tcp) / TRANSLATION
    rotation = wrap(np.array([0.0, 0.0, yaw]) - state.euler) / ROTATION
    action = np.concatenate([translation, 0.9 * rotation, [gripper]])
    clipped: np.ndarray = np.clip(action, -1.0, 1.0).astype(np.float32)
    return clipped
