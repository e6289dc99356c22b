"""Draws images by casting rays on the CPU, without OpenGL, so they are equal on every machine."""

from functools import cached_property
from typing import Any

import numpy as np

LIGHT = np.array([0.35, -0.45, 0.82])  # direction to the light
BACKGROUND = np.array([150, 170, 190], np.uint8)
AMBIENT = 0.55  # share of the light that reaches every face
TOP = 4  # the face +z
FARTHEST = 10.0  # metres; nothing in the scene is farther from a camera


class RayCamera:
    """A pinhole camera with one ray per pixel; the face that a ray hits gives the pixel's colour.

    Newer versions of MuJoCo return the normals of faces, older versions do not. So that all
    versions give the same images, no normals are used: the point that the ray hits tells which
    face of the geom's box was hit.

    rays: unit vectors (n 3) in the camera's axes, one for each pixel, row by row from the top left.
    """

    def __init__(self, model: Any, size: int, field_of_view: float, floor: str) -> None:
        """Make a camera, which each call of `render` can place anywhere in the model.

        size: rows and columns of the image.
        field_of_view: vertical field of view in degrees.
        floor: name of a geom that is drawn everywhere in the colour of its top face.
        """
        import mujoco

        self.model, self.size = model, size
        reach = np.tan(np.radians(field_of_view) / 2)
        steps = (np.arange(size) + 0.5) / size * 2 - 1
        right, down = np.meshgrid(steps * reach, steps * reach)
        rays = np.stack([right, -down, -np.ones_like(right)], axis=-1).reshape(-1, 3)
        self.rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        self._geom, self._distance = np.zeros(len(rays), np.int32), np.zeros(len(rays))
        self._floor = model.geom(floor).id
        self._multi_ray = mujoco.mj_multiRay
        self._normals = (None,) if "normal" in (mujoco.mj_multiRay.__doc__ or "") else ()

    def render(self, data: Any, position: np.ndarray, axes: np.ndarray) -> np.ndarray:
        """Draw the view from a position (3) -> (Y X 3) uint8.

        axes: the camera's right, up and backwards, as columns (3 3).
        """
        rays = self.rays @ axes.T
        self.cast(data, position, rays)
        palette = self._palette(data.geom_xmat.reshape(-1, 3, 3))
        colours = palette[self._geom, TOP]
        colours[self._geom < 0] = BACKGROUND
        # indices of the rays that hit a geom which is not the floor
        others = np.flatnonzero((self._geom >= 0) & (self._geom != self._floor))
        geoms, hits = self._geom[others], position + rays[others] * self._distance[others, None]
        colours[others] = palette[geoms, self._faces(data, geoms, hits)]
        image: np.ndarray = colours.reshape(self.size, self.size, 3)
        return image

    def cast(self, data: Any, position: np.ndarray, rays: np.ndarray) -> None:
        """Find the first geom that each ray (n 3) from `position` (3) hits, and the distance to it.

        Rays and position are in the world's axes.
        """
        results = (self._geom, self._distance, *self._normals)
        # None: include all groups of geoms; 1: include static geoms; -1: exclude no body
        self._multi_ray(
            self.model, data, position, rays.ravel(), None, 1, -1, *results, len(rays), FARTHEST
        )

    def _faces(self, data: Any, geoms: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Return which box face each ray hits, as an index (m): 0 to 5 for +x -x +y -y +z -z.

        geoms: index of the geom that each ray hits (m).
        hits: the points at which the rays end (m 3).
        """
        offsets = hits - data.geom_xpos[geoms]
        rotations = data.geom_xmat[geoms].reshape(-1, 3, 3)
        local = (offsets[:, :, None] * rotations).sum(axis=1) / self._extent[geoms]
        axis = np.abs(local).argmax(axis=1)
        faces: np.ndarray = axis * 2 + (local[np.arange(len(axis)), axis] < 0)
        return faces

    @cached_property
    def _extent(self) -> np.ndarray:
        """Half the side lengths of each geom's box (geoms 3)."""
        import mujoco

        size, kind = self.model.geom_size.copy(), self.model.geom_type[:, None]
        radius = size[:, :1]
        size = np.where(kind == mujoco.mjtGeom.mjGEOM_SPHERE, radius, size)
        # the size of a cylinder in MuJoCo is its radius and half its length
        cylinder = np.concatenate([radius, radius, size[:, 1:2]], axis=1)
        extent: np.ndarray = np.where(kind == mujoco.mjtGeom.mjGEOM_CYLINDER, cylinder, size)
        return extent

    def _palette(self, rotation: np.ndarray) -> np.ndarray:
        """Return the colour of each face of each geom's box (geoms 6 3) uint8: +x -x +y -y +z -z.

        rotation: axes of each geom (geoms 3 3).
        """
        towards = LIGHT @ rotation  # (geoms 3): cosine between each axis and the light
        direct = np.stack([towards, -towards], axis=-1).reshape(len(rotation), 6).clip(0)
        brightness = AMBIENT + (1 - AMBIENT) * direct
        colours: np.ndarray = self.model.geom_rgba[:, None, :3] * brightness[..., None] * 255
        return colours.clip(0, 255).astype(np.uint8)


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the axes (3 3) of an upright camera at `position` that looks at `target`.

    The columns of the result are the camera's right, up and backwards.
    """
    backwards = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 1.0, 0.0] if abs(backwards[2]) > 0.999 else [0.0, 0.0, 1.0], backwards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(backwards, right), backwards], axis=1)
