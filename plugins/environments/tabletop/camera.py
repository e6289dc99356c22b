"""Images by casting rays on the CPU: no OpenGL, no display, the same pixels on every machine."""

from functools import cached_property
from typing import Any

import numpy as np

LIGHT = np.array([0.35, -0.45, 0.82])  # direction to the light
BACKGROUND = np.array([150, 170, 190], np.uint8)
AMBIENT = 0.55  # share of the light that reaches every face
TOP = 4  # the face +z
FARTHEST = 10.0  # metres; nothing in the scene is farther from a camera


class RayCamera:
    """A pinhole camera: one ray per pixel, shaded by the geom's colour and the direction of the
    face that is hit.

    rays: directions (n 3) of length 1, row by row from the top left, in the camera's axes.

    MuJoCo's newer versions return normals, older ones do not: a face is told from where on the
    geom's box a ray ends, so that all versions give the same pixels.
    """

    def __init__(self, model: Any, size: int, field_of_view: float, floor: str) -> None:
        """size: rows and columns; field_of_view: vertical, degrees; floor: a geom of which only the
        top is seen.
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
        """Draw what is seen from position (3); axes (3 3): columns are right, up and backwards ->
        (Y X 3) uint8.
        """
        rays = self.rays @ axes.T
        self.cast(data, position, rays)
        palette = self._palette(data.geom_xmat.reshape(-1, 3, 3))
        pixels = palette[self._geom, TOP]
        pixels[self._geom < 0] = BACKGROUND
        shaped = np.flatnonzero((self._geom >= 0) & (self._geom != self._floor))
        geoms, hits = self._geom[shaped], position + rays[shaped] * self._distance[shaped, None]
        pixels[shaped] = palette[geoms, self._faces(data, geoms, hits)]
        image: np.ndarray = pixels.reshape(self.size, self.size, 3)
        return image

    def cast(self, data: Any, position: np.ndarray, rays: np.ndarray) -> None:
        """Find what the rays (n 3) from position (3) hit first, both in the world's axes, and how
        far away it is.
        """
        self._multi_ray(
            self.model, data, position, rays.ravel(), None, 1, -1, self._geom, self._distance, *self._normals,
            len(rays), FARTHEST,
        )  # fmt: skip

    def _faces(self, data: Any, geoms: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Which face of its geom's box each ray hits: geoms (m), hits (m 3) -> (m), +x -x +y -y +z
        -z.
        """
        offsets = hits - data.geom_xpos[geoms]
        rotations = data.geom_xmat[geoms].reshape(-1, 3, 3)
        local = (offsets[:, :, None] * rotations).sum(axis=1) / self._extent[geoms]
        axis = np.abs(local).argmax(axis=1)
        faces: np.ndarray = axis * 2 + (local[np.arange(len(axis)), axis] < 0)
        return faces

    @cached_property
    def _extent(self) -> np.ndarray:
        """Half sizes of each geom's box (geoms 3)."""
        import mujoco

        size, kind = self.model.geom_size.copy(), self.model.geom_type[:, None]
        radius = size[:, :1]
        size = np.where(kind == mujoco.mjtGeom.mjGEOM_SPHERE, radius, size)
        cylinder = np.concatenate(
            [radius, radius, size[:, 1:2]], axis=1
        )  # MuJoCo gives radius and half length
        extent: np.ndarray = np.where(kind == mujoco.mjtGeom.mjGEOM_CYLINDER, cylinder, size)
        return extent

    def _palette(self, rotation: np.ndarray) -> np.ndarray:
        """Colour of each face of each geom's box (geoms 6 3) uint8: +x -x +y -y +z -z."""
        towards = LIGHT @ rotation  # (geoms 3): how far each axis points to the light
        lit = np.stack([towards, -towards], axis=-1).reshape(len(rotation), 6).clip(0)
        shade = AMBIENT + (1 - AMBIENT) * lit
        colours: np.ndarray = (self.model.geom_rgba[:, None, :3] * shade[..., None] * 255).clip(
            0, 255
        )
        return colours.astype(np.uint8)


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Axes (3 3) of a camera at position that looks at target, upright: columns are right, up and
    backwards.
    """
    backwards = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 1.0, 0.0] if abs(backwards[2]) > 0.999 else [0.0, 0.0, 1.0], backwards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(backwards, right), backwards], axis=1)
