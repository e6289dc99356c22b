"""Draws the table, the cubes, the tray and the arm as two cameras of 640 x 480 pixels see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from tests.benchmarks.own_arm.arm import CUBE, HAND, Scene, skeleton

WIDTH, HEIGHT = 640, 480
THICKNESS = 0.02  # metres, of the links and fingers
NEAR = 0.03  # metres; nothing nearer to a camera is drawn
COLOURS = {"red": (200, 50, 45), "blue": (50, 80, 200), "green": (60, 160, 70)}
LINKS = ((60, 60, 66), (225, 180, 60), (225, 180, 60), (70, 70, 78))
SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: its position (3), its right, down and forward axes (3 3), focal length."""

    position: np.ndarray
    axes: np.ndarray
    focal: float

    def see(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels (m 2) and depths (m) of what lies before the camera of a face (n 3).

        A face that reaches behind the camera is cut off there; m is 0 if nothing is left.
        """
        local = (points - self.position) @ self.axes.T
        kept = []
        for i, here in enumerate(local):
            if here[2] > NEAR:
                kept.append(here)
            following = local[(i + 1) % len(local)]
            is_edge = len(local) > 2 or i == 0  # a bar has one edge
            if is_edge and (here[2] > NEAR) != (following[2] > NEAR):
                share = (NEAR - here[2]) / (following[2] - here[2])
                kept.append(here + share * (following - here))
        right, down, depth = np.array(kept).reshape(-1, 3).T
        pixels = np.stack([right, down], axis=-1) / depth[:, None] * self.focal
        return pixels + np.array([WIDTH / 2, HEIGHT / 2]), depth


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray, focal: float) -> Camera:
    """Return a camera at a position that has the target in the middle of its image."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, up) / np.linalg.norm(np.cross(forward, up))
    return Camera(position, np.stack([right, np.cross(forward, right), forward]), focal)


def cameras_of(joints: np.ndarray) -> Mapping[str, Camera]:
    """Return the camera in front of the table, and the one that the arm carries at its wrist."""
    points, side = skeleton(joints)
    hand = (points[-1] - points[-2]) / HAND
    back = np.cross(side, hand)
    up = np.array([0.0, 0.0, 1.0])
    front = look_at(np.array([0.52, 0.0, 0.36]), np.array([0.15, 0.0, 0.06]), up, 620.0)
    eye = points[-2] + 0.06 * back
    return {"front": front, "wrist": look_at(eye, points[-1] + 0.02 * hand, back, 420.0)}


def draw(
    scene: Scene, cubes: Mapping[str, np.ndarray], joints: np.ndarray, light: float
) -> dict[str, np.ndarray]:
    """Draw each camera's image (480 640 3) uint8.

    cubes: each cube's centre (x, y, z) now. light: brightness, 1.0 is that of the lamp at noon.
    """
    cameras = cameras_of(joints)
    return {name: _draw(cameras[name], scene, cubes, joints, light) for name in cameras}


def _draw(
    camera: Camera,
    scene: Scene,
    cubes: Mapping[str, np.ndarray],
    joints: np.ndarray,
    light: float,
) -> np.ndarray:
    """Draw a camera's image: the table, then all other faces from the farthest to the nearest."""
    image = Image.new("RGB", (WIDTH, HEIGHT), _lit((120, 125, 130), light))
    canvas = ImageDraw.Draw(image)
    table = np.array([[-0.1, -0.4, 0], [0.45, -0.4, 0], [0.45, 0.4, 0], [-0.1, 0.4, 0]])
    tray = np.concatenate([scene.tray + SQUARE * 0.07, np.full((4, 1), 0.001)], axis=-1)
    for face, colour in ((table, (205, 200, 190)), (tray, (245, 245, 245))):
        _fill(canvas, camera, face, _lit(colour, light))
    faces = [*_arm_faces(joints)]
    for colour, centre in cubes.items():
        faces += _cube_faces(centre, scene.turns[colour], COLOURS[colour])
    far_first = sorted(faces, key=lambda face: -(camera.axes[2] @ face[0].mean(axis=0)))
    for points, shade in far_first:
        _fill(canvas, camera, points, _lit(shade, light))
    return np.asarray(image)


def _fill(
    canvas: ImageDraw.ImageDraw, camera: Camera, points: np.ndarray, colour: tuple[int, int, int]
) -> None:
    """Fill a face (n 3); a bar is a face of two points, whose width follows its distance."""
    pixels, depth = camera.see(points)
    corners = [tuple(pixel) for pixel in pixels.tolist()]
    if len(points) == 2 and corners:
        canvas.line(corners, fill=colour, width=int(THICKNESS * camera.focal / depth.mean()))
    elif len(corners) > 2:
        canvas.polygon(corners, fill=colour)


def _cube_faces(
    centre: np.ndarray, turn: float, colour: tuple[int, int, int]
) -> list[tuple[np.ndarray, tuple[int, int, int]]]:
    """Return a cube's top and sides; sides are darker, each by another share."""
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = SQUARE @ rotation.T * CUBE + centre[:2]
    low, high = (
        np.concatenate([corners, np.full((4, 1), centre[2] + z)], axis=-1)
        for z in (-CUBE / 2, CUBE / 2)
    )
    faces = [(high, colour)]
    for i, share in enumerate((0.6, 0.75, 0.85, 0.7)):
        j = (i + 1) % 4
        side = np.stack([low[i], low[j], high[j], high[i]])
        faces.append((side, _lit(colour, share)))
    return faces


def _arm_faces(joints: np.ndarray) -> list[tuple[np.ndarray, tuple[int, int, int]]]:
    """Return the links and the two fingers as bars."""
    points, side = skeleton(joints)
    palm = points[-2] + 0.55 * (points[-1] - points[-2])
    links = pairwise([*points[:-1], palm])
    bars = [(np.stack(ends), colour) for ends, colour in zip(links, LINKS, strict=True)]
    opening = 0.005 + joints[5] / 100 * 0.035
    for sign in (-1, 1):
        finger = np.stack([palm, points[-1]]) + sign * opening * side
        bars.append((finger, (40, 40, 44)))
    return bars


def _lit(colour: tuple[int, int, int], light: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(light * value)) for value in colour)
    return red, green, blue
