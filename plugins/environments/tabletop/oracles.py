"""The oracles, which tell from the state whether a task is done.

`before` is the state at the beginning of the task, `now` the present state.
"""

import numpy as np

from plugins.environments.tabletop.scene import DRAWER, HALF_BLOCK, State, wrap


def is_lifted(colour: str, before: State, now: State) -> bool:
    """Return whether a block is held, and has risen by more than five centimetres.

    The rise is measured from the height of a block that stands on the table, even if the lifted
    block began on top of another block.
    """
    rise = now.blocks[colour].position[2] - min(before.blocks[colour].position[2], HALF_BLOCK)
    return bool(now.held == colour and rise > 0.05)


def is_pushed(colour: str, direction: int, before: State, now: State) -> bool:
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


def is_rotated(colour: str, before: State, now: State) -> bool:
    """Return whether a block on the table has turned counter-clockwise by more than 35 degrees."""
    turn = wrap(now.blocks[colour].yaw - before.blocks[colour].yaw)
    return bool(turn > np.radians(35) and now.blocks[colour].position[2] < 1.5 * HALF_BLOCK)


def is_in_drawer(colour: str, before: State, now: State) -> bool:  # noqa: ARG001
    """Return whether a block is released inside the open drawer."""
    x, y, z = now.blocks[colour].position
    front = DRAWER[1] - now.drawer
    return bool(
        abs(x - DRAWER[0]) < 0.05 and front < y < front + 0.11 and z < 0.045 and now.held is None
    )


def is_stacked(colour: str, below: str, before: State, now: State) -> bool:  # noqa: ARG001
    """Return whether a block is released on top of another block."""
    offset = now.blocks[colour].position - now.blocks[below].position
    is_above = np.linalg.norm(offset[:2]) < 1.3 * HALF_BLOCK
    touches = abs(offset[2] - 2 * HALF_BLOCK) < 0.006
    return bool(is_above and touches and now.held is None and now.opening > 0.05)


def is_drawer_opened(before: State, now: State) -> bool:
    """Return whether the drawer was nearly closed, and is now open by 7.5 cm or more."""
    return before.drawer < 0.03 and now.drawer > 0.075


def is_drawer_closed(before: State, now: State) -> bool:
    """Return whether the drawer was open by 6 cm, and is now closed to 2 cm."""
    return before.drawer > 0.06 and now.drawer < 0.02


def is_slid(direction: int, before: State, now: State) -> bool:
    """Return whether the slider has gone from one side to the other; direction 1 is right."""
    return direction * before.slider < -0.02 and direction * now.slider > 0.025


def is_switched(on: bool, before: State, now: State) -> bool:
    """Return whether the lamp has become lit (`on`) or dark."""
    return before.lamp != on and now.lamp == on
