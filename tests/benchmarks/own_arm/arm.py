"""Geometry and motion of an arm with the proportions of the SO-100, a hobbyist's arm.

Five joints in degrees, and a gripper whose opening is given in percent. The arm stands at the
origin of the table; x points away from it, y to its left, z up.
"""

from dataclasses import dataclass

import numpy as np

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
RATE = 30  # frames per second
# metres: the shoulder's height, the upper arm, the forearm, and from the wrist to the fingertips
SHOULDER, UPPER, FOREARM, HAND = 0.12, 0.115, 0.135, 0.10
HOME = np.array([0.0, 110.0, -120.0, -60.0, 0.0, 5.0])
ENCODER = 360 / 4096  # degrees: a joint's position is read in steps of this size
LAG = 2  # frames by which the arm follows its command
CUBE = 0.025  # metres, length of an edge
OPEN, CLOSED = 60.0, 25.0  # percent: the gripper above a cube, and on the cube


@dataclass(frozen=True)
class Scene:
    """Where things are: each cube's centre (x, y) and turn in radians, and the tray's centre."""

    cubes: dict[str, np.ndarray]
    turns: dict[str, float]
    tray: np.ndarray


def place_things(random: np.random.Generator, colours: tuple[str, ...]) -> Scene:
    """Draw places within the arm's reach that are at least 7 cm apart."""
    while True:
        radius = random.uniform(0.15, 0.24, len(colours) + 1)
        angle = random.uniform(-0.9, 0.9, len(colours) + 1)
        places = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
        if (gaps[~np.eye(len(gaps), dtype=bool)] > 0.07).all():
            break
    turns = random.uniform(-np.pi / 4, np.pi / 4, len(colours))
    cubes = dict(zip(colours, places, strict=False))
    return Scene(cubes, dict(zip(colours, turns.tolist(), strict=True)), places[-1])


def joints_above(place: np.ndarray, height: float, turn: float, opening: float) -> np.ndarray:
    """Return the joints (6) that hold the fingertips at a height over a place, pointing down.

    turn: of the fingers around the vertical, in radians.
    """
    pan = np.arctan2(place[1], place[0])
    reach, rise = np.hypot(*place), height + HAND - SHOULDER
    distance = np.hypot(reach, rise)
    inner = (UPPER**2 + distance**2 - FOREARM**2) / (2 * UPPER * distance)
    outer = (UPPER**2 + FOREARM**2 - distance**2) / (2 * UPPER * FOREARM)
    lift = np.arctan2(rise, reach) + np.arccos(inner)
    elbow = np.arccos(outer) - np.pi
    wrist = -np.pi / 2 - lift - elbow
    return np.array([*np.degrees([pan, lift, elbow, wrist, pan - turn]), opening])


def skeleton(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the arm's points (5 3) from base to fingertips, and the fingers' sideways axis (3)."""
    pan, lift, elbow, wrist, roll = np.radians(joints[:5])
    forward = np.array([np.cos(pan), np.sin(pan), 0.0])
    side = np.array([-np.sin(pan), np.cos(pan), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    points = [np.zeros(3), SHOULDER * up]
    for length, pitch in ((UPPER, lift), (FOREARM, lift + elbow), (HAND, lift + elbow + wrist)):
        points.append(points[-1] + length * (np.cos(pitch) * forward + np.sin(pitch) * up))
    hand = (points[-1] - points[-2]) / HAND
    return np.stack(points), np.cos(roll) * side + np.sin(roll) * np.cross(hand, side)


def demonstrate(scene: Scene, colour: str, random: np.random.Generator) -> np.ndarray:
    """Return a person's commands (n 6) that put a cube into the tray, with pauses of their own."""
    cube, turn, tray = scene.cubes[colour], scene.turns[colour], scene.tray
    carried = np.arctan2(tray[1], tray[0])
    stops = [
        (HOME, 0.2),
        (joints_above(cube, 0.07, turn, OPEN), 1.2),
        (joints_above(cube, CUBE / 2, turn, OPEN), 0.7),
        (joints_above(cube, CUBE / 2, turn, CLOSED), 0.4),
        (joints_above(cube, 0.08, turn, CLOSED), 0.6),
        (joints_above(tray, 0.08, carried, CLOSED), 1.0),
        (joints_above(tray, 0.035, carried, CLOSED), 0.5),
        (joints_above(tray, 0.035, carried, OPEN), 0.4),
        (HOME, 1.2),
    ]
    commands, last = [HOME[None]], HOME
    for goal, seconds in stops:
        frames = int(RATE * seconds * random.uniform(0.85, 1.25))
        share = np.linspace(0, 1, frames + 1)[1:, None]
        smooth = share**3 * (10 - 15 * share + 6 * share**2)  # without jerk, as hands move
        commands.append(last + smooth * (goal - last))
        last = goal
    noise = random.normal(0, 1, (sum(map(len, commands)), 6))
    tremor = np.stack([np.convolve(column, np.ones(9) / 9, "same") for column in noise.T], axis=-1)
    return np.concatenate(commands) + 0.6 * tremor


def follow(commands: np.ndarray) -> np.ndarray:
    """Return the joints (n 6) that the arm's encoders read while it follows the commands."""
    late = np.concatenate([np.repeat(commands[:1], LAG, axis=0), commands[:-LAG]])
    return np.round(late / ENCODER) * ENCODER
