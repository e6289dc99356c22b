"""Experts for the two tasks of gym-aloha, and a wrapper that draws only what is looked at.

Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (ACT), 2023: two
six-jointed arms face each other; one picks a cube up and hands it to the other, or each picks one
thing up and they put the one into the other. As in ACT's own demonstrations, motion is planned for
the grippers and turned into joint angles by inverse kinematics; unlike there, it depends on where
things and arms are, not on time.

Lengths are metres, in the world frame: x points from the left arm to the right one, z up.
"""

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

TOOL = 0.135  # from the gripper's own frame to between the fingertips, along its x axis
SPEED, TURN = 0.006, 0.04  # of a gripper in a step of 1/50 s, in metres and radians
HOVER = 0.08  # a gripper approaches a thing from this distance
AIMED = 0.008  # deviation from the way of approach at which it is at the thing
REACHED = 0.012  # distance at which it closes
OPEN, CLOSED = 1.0, 0.0
FOREARM = 3  # the joint that turns an arm's forearm
UP, ALONG = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
# Axes of a gripper, as columns. To pick up, it points down by 60 degrees and closes along y; to
# take over, the left one points to the right and closes along z.
LEFT = np.stack([[0.5, 0, -(0.75**0.5)], [0, 1, 0], [0.75**0.5, 0, 0.5]], axis=-1)
RIGHT = np.stack([[-0.5, 0, -(0.75**0.5)], [0, -1, 0], [-(0.75**0.5), 0, 0.5]], axis=-1)
ACROSS = np.stack([[1, 0, 0], [0, 0, 1], [0, -1, 0]], axis=-1)

MEET = np.array([0.0, 0.5, 0.25])  # where the cube is handed over
GRASP = np.array([-0.012, 0.0, 0.0])  # of the left gripper, from the cube's centre

SOCKET = ("socket-1", "socket-2", "socket-3", "socket-4")
SOCKET_PLACE = np.array([-0.08, 0.5, 0.2])  # where the socket is held for the peg
# from the centre of peg or socket to where it is picked up; the fingertips stay above the table
PEG_END, SOCKET_END = np.array([0.03, 0.0, 0.012]), np.array([-0.03, 0.0, 0.0])
# Distance between the centres of peg and socket, both 12 cm long: apart, and with the peg inside,
# where a pin in the socket stops it at 10 cm.
APART, PUSHED_IN = 0.15, 0.09


def drawing_on_demand(environment: Any) -> Any:
    """Return gym-aloha's environment, changed so that a step draws nothing; `render` still does.

    Each of its steps draws three pictures of 480 x 640, which takes a hundred times as long as the
    step. In their place, the observation has one black pixel. What `render` draws has neither
    shadows nor smoothed edges.
    """
    inner = environment.unwrapped._env
    quality, task = inner.physics.model.vis.quality, inner.task
    quality.shadowsize = quality.offsamples = 0
    black = np.zeros((1, 1, 3), np.uint8)
    task.get_observation = lambda physics: {
        "qpos": task.get_qpos(physics),
        "images": {"top": black},
    }
    return environment


@dataclass(frozen=True)
class Goal:
    """Where a gripper should go: position (3), rotation (3 3), and its opening there."""

    position: np.ndarray
    rotation: np.ndarray
    opening: float


class TransferCubeExpert:
    """Calls return the joint angles (14), of which the seventh of each arm is its gripper.

    environment: a `gym_aloha/AlohaTransferCube-v0`.
    """

    def __init__(self, environment: Any) -> None:
        self._arms = Arms(environment)

    def __call__(self) -> np.ndarray:
        """Return the action for the present state."""
        arms, cube = self._arms, self._arms.place_of("box")
        left, right = (
            Goal(MEET + GRASP - [HOVER + 0.04, 0, 0], ACROSS, OPEN),
            Goal(MEET, RIGHT, CLOSED),
        )
        if not arms.right.holds(("red_box",)):
            right = arms.right.approach(cube, UP, RIGHT)
        elif np.linalg.norm(cube - MEET) < 0.03:
            left = arms.left.approach(cube + GRASP, -ALONG, ACROSS)
        return arms.action(left, right)


class InsertionExpert:
    """Calls return the joint angles (14), of which the seventh of each arm is its gripper.

    Each arm picks one thing up at the end that is nearer to itself. In the air, the peg is brought
    before the socket and then pushed in, the farther the better it is aimed.

    environment: a `gym_aloha/AlohaInsertion-v0`.
    """

    def __init__(self, environment: Any) -> None:
        self._arms = Arms(environment)

    def __call__(self) -> np.ndarray:
        """Return the action for the present state."""
        arms = self._arms
        peg, socket = arms.place_of("peg"), arms.place_of("socket")
        holds_peg, holds_socket = arms.right.holds(("red_peg",)), arms.left.holds(SOCKET)
        if holds_socket:
            left = Goal(arms.left.tool() + SOCKET_PLACE - socket, LEFT, CLOSED)
        else:
            left = arms.left.approach(socket + SOCKET_END, UP, LEFT)
        if holds_peg and holds_socket:
            off = peg - socket
            astray = max(
                float(np.linalg.norm(off[1:])), float(np.linalg.norm(socket - SOCKET_PLACE))
            )
            apart = PUSHED_IN + min(max(5 * (astray - 0.004), 0), APART - PUSHED_IN)
            right = Goal(arms.right.tool() + socket + apart * ALONG - peg, RIGHT, CLOSED)
        elif holds_peg:
            place = SOCKET_PLACE + APART * ALONG
            right = Goal(arms.right.tool() + place - peg, RIGHT, CLOSED)
        else:
            right = arms.right.approach(peg + PEG_END, UP, RIGHT)
        return arms.action(left, right)


class Arms:
    """Both arms of an environment of gym-aloha, in the state of its simulation."""

    def __init__(self, environment: Any) -> None:
        physics = environment.unwrapped._env.physics
        self._data = physics.data.ptr
        self.left = Arm(physics.model.ptr, self._data, "vx300s_left", 0)
        self.right = Arm(physics.model.ptr, self._data, "vx300s_right", 8)

    def place_of(self, body: str) -> np.ndarray:
        """Return where the centre (3) of a body is."""
        return np.array(self._data.body(body).xpos)

    def action(self, left: Goal, right: Goal) -> np.ndarray:
        """Return the action (14) that brings both grippers a step nearer to their goals."""
        return np.concatenate([self.left.action(left), self.right.action(right)])


class Arm:
    """One arm: where its gripper is, what it holds, and the joint angles that bring it to a goal.

    name: prefix of its bodies and geometries.
    first: index of its first joint, the same among positions, velocities and actuators.
    """

    def __init__(self, model: Any, data: Any, name: str, first: int) -> None:
        self._mujoco = import_module("mujoco")
        self._model, self._data, self._scratch = model, data, self._mujoco.MjData(model)
        self._joints = slice(first, first + 6)
        self._body = model.body(f"{name}/gripper_link").id
        sides = ("left", "right")
        self._fingers = {model.geom(f"{name}/10_{side}_gripper_finger").id for side in sides}
        self._limits = model.jnt_range[self._joints]

    def tool(self) -> np.ndarray:
        """Return the point (3) between the fingertips."""
        return self._tool(self._data)

    def holds(self, geometries: Collection[str]) -> bool:
        """Whether both fingers touch one of these geometries."""
        things = {self._model.geom(name).id for name in geometries}
        pairs = ({int(c.geom1), int(c.geom2)} for c in self._data.contact)
        return self._fingers == {f for pair in pairs if pair & things for f in pair & self._fingers}

    def approach(self, place: np.ndarray, back: np.ndarray, rotation: np.ndarray) -> Goal:
        """Come to a place from the direction `back`, the nearer the better aimed; close there."""
        off = self.tool() - place
        astray = float(np.linalg.norm(off - off @ back * back))
        distance = min(max(2 * (astray - AIMED), 0), HOVER)
        opening = CLOSED if np.linalg.norm(off) < REACHED else OPEN
        return Goal(place + distance * back, rotation, opening)

    def action(self, goal: Goal) -> np.ndarray:
        """Return joint targets and opening (7) that bring the gripper a step nearer to a goal.

        The step begins at the present targets, which are part of the state: the joints follow them
        with a delay.
        """
        angles = np.array(self._data.ctrl[self._joints])
        position, rotation = self._pose(angles)
        way = goal.position - position
        position = position + way * min(1.0, SPEED / max(1e-9, float(np.linalg.norm(way))))
        turn = Rotation.from_matrix(goal.rotation @ rotation.T).as_rotvec()
        turn *= min(1.0, TURN / max(1e-9, float(np.linalg.norm(turn))))
        rotation = Rotation.from_rotvec(turn).as_matrix() @ rotation
        return np.append(self._inverse(angles, position, rotation), goal.opening)

    def _tool(self, data: Any) -> np.ndarray:
        place: np.ndarray = data.xpos[self._body] + TOOL * data.xmat[self._body].reshape(3, 3)[:, 0]
        return place

    def _pose(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tool's position (3) and the gripper's rotation (3 3) at joint angles (6)."""
        self._scratch.qpos[self._joints] = angles
        self._mujoco.mj_kinematics(self._model, self._scratch)
        return self._tool(self._scratch), self._scratch.xmat[self._body].reshape(3, 3).copy()

    def _inverse(
        self, angles: np.ndarray, position: np.ndarray, rotation: np.ndarray
    ) -> np.ndarray:
        """Return joint angles (6) near the given ones at which the tool has a pose.

        Damped least squares (Wampler, 1986): Newton steps that stay small in a stretched arm.
        A slight pull holds the forearm's turn near zero: the same pose with the forearm turned by
        half a revolution would be taken now and then.
        """
        jacobian = np.zeros((2, 3, self._model.nv))
        for _ in range(5):
            place, turned = self._pose(angles)
            error = np.append(
                position - place, Rotation.from_matrix(rotation @ turned.T).as_rotvec()
            )
            self._mujoco.mj_comPos(self._model, self._scratch)
            self._mujoco.mj_jac(
                self._model, self._scratch, jacobian[0], jacobian[1], place, self._body
            )
            slope = jacobian[:, :, self._joints].reshape(6, 6)
            pull = 1e-4 * (np.arange(6) == FOREARM)
            normal = slope.T @ slope + np.diag(1e-4 + pull)
            step = np.linalg.solve(normal, slope.T @ error - pull * angles)
            angles = (angles + step).clip(*self._limits.T)
        return angles
