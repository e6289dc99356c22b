"""Scripted experts for Lift and Stack, which look at the present state alone.

Lengths are metres, in the world frame, in which z points up. The frame between the fingertips has
its x along the line on which they close, and its z away from the hand.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

REACH, TURN = 0.05, 0.5  # what an action of 1.0 asks for, in metres and radians
GAIN = 2.0  # how many times the way that is left is asked for: a disturbance is soon overcome
OPEN, CLOSED = -1.0, 1.0
UP = np.array([0.0, 0.0, 1.0])
HOVER = 0.08  # height above a cube from which the hand comes down
AIMED, STRAIGHT = 0.01, 0.15  # deviations, in metres and radians, with which it may come down
REACHED = 0.015  # distance at which it closes
NEAR = 0.15  # distance at which another cube may be in the fingers' way
CARRY = 0.04  # height above its place at which a cube is carried there
PLACED = (0.015, 0.006)  # how far beside and above its place a cube is let go


@dataclass(frozen=True)
class Cube:
    """A cube: position of its centre (3), rotation (3 3), and half its edges (3)."""

    position: np.ndarray
    rotation: np.ndarray
    half: np.ndarray


def lift(environment: Any) -> np.ndarray:
    """Return the action (7) that brings a robosuite Lift a step further: grasp, then raise."""
    hand, cube = Hand(environment), _cube(environment, environment.cube)
    if hand.holds(environment.cube):
        return hand.action(hand.position + REACH * UP, hand.rotation, CLOSED)
    return hand.grasp(cube, _sides(cube))


def stack(environment: Any) -> np.ndarray:
    """Return the action (7) that brings a robosuite Stack a step further.

    The red cube is grasped, carried above the green one, lowered and let go.
    """
    hand = Hand(environment)
    red, green = (_cube(environment, x) for x in (environment.cubeA, environment.cubeB))
    place = green.position + (green.half[2] + red.half[2]) * UP
    off = place - red.position
    if np.linalg.norm(off[:2]) < PLACED[0] and abs(off[2]) < PLACED[1]:
        return hand.action(hand.position, hand.rotation, OPEN)
    if hand.holds(environment.cubeA):
        return hand.action(hand.position + _way(off), hand.rotation, CLOSED)
    return hand.grasp(red, _free_sides(red, green))


EXPERTS = {"Lift": lift, "Stack": stack}


class Hand:
    """The hand of a robosuite environment's robot in the present state."""

    def __init__(self, environment: Any) -> None:
        self._environment, robot = environment, environment.robots[0]
        data, site = environment.sim.data, robot.eef_site_id["right"]
        self._gripper = robot.gripper["right"]
        self.position = np.array(data.site_xpos[site])
        self.rotation = np.array(data.site_xmat[site]).reshape(3, 3)

    def holds(self, cube: Any) -> bool:
        """Whether both fingers touch a cube of robosuite."""
        return bool(self._environment._check_grasp(self._gripper, cube))

    def grasp(self, cube: Cube, sides: list[np.ndarray]) -> np.ndarray:
        """Come down on a cube and close there, with the fingers at either of the pairs of sides.

        sides: directions (3) in which the fingers may close; the hand takes the nearest.
        """
        rotation = self._above(sides)
        off = self.position - cube.position
        turn = _angle(rotation @ self.rotation.T)
        astray = max(float(np.linalg.norm(off[:2])) / AIMED, turn / STRAIGHT)
        height = HOVER * min(1.0, max(0.0, astray - 1))
        gripper = CLOSED if np.linalg.norm(off) < REACHED else OPEN
        return self.action(cube.position + height * UP, rotation, gripper)

    def action(self, position: np.ndarray, rotation: np.ndarray, gripper: float) -> np.ndarray:
        """Return the action (7) towards a position and a rotation (3 3) of the hand."""
        turn = Rotation.from_matrix(rotation @ self.rotation.T).as_rotvec()
        way = np.concatenate([(position - self.position) / REACH, turn / TURN])
        return np.append((GAIN * way).clip(-1, 1), gripper).astype(np.float32)

    def _above(self, sides: list[np.ndarray]) -> np.ndarray:
        """Return the rotation (3 3) of a hand that points down and closes along one of `sides`."""
        both = [sign * side for side in sides for sign in (1, -1)]
        closing = max(both, key=lambda side: float(side @ self.rotation[:, 0]))
        return np.stack([closing, np.cross(-UP, closing), -UP], axis=-1)


def _way(off: np.ndarray) -> np.ndarray:
    """Return the way (3) of a held cube whose place is `off` (3): up, then beside, then down."""
    astray = float(np.linalg.norm(off[:2])) / AIMED
    way = off + CARRY * min(1.0, max(0.0, astray - 1)) * UP
    is_low = way[2] > 0.5 * CARRY and astray > 1.5
    return way * [0, 0, 1] if is_low else way


def _cube(environment: Any, cube: Any) -> Cube:
    """Return a cube of robosuite as it lies now."""
    data, body = environment.sim.data, environment.sim.model.body_name2id(cube.root_body)
    rotation = np.array(data.body_xmat[body]).reshape(3, 3)
    return Cube(np.array(data.body_xpos[body]), rotation, np.array(cube.size))


def _sides(cube: Cube) -> list[np.ndarray]:
    """Return the two level directions (3) across a cube's upright sides."""
    steepest = int(np.abs(cube.rotation[2]).argmax())
    level = [cube.rotation[:, axis] * [1, 1, 0] for axis in range(3) if axis != steepest]
    return [side / np.linalg.norm(side) for side in level]


def _free_sides(cube: Cube, other: Cube) -> list[np.ndarray]:
    """Return the directions across a cube in which the other cube is not in the fingers' way."""
    way = (other.position - cube.position) * [1, 1, 0]
    sides = _sides(cube)
    return sides if np.linalg.norm(way) > NEAR else [min(sides, key=lambda side: abs(side @ way))]


def _angle(rotation: np.ndarray) -> float:
    return float(np.linalg.norm(Rotation.from_matrix(rotation).as_rotvec()))
