"""Draws what robosuite's cameras see, by OpenGL without a display."""

import os
from importlib import import_module
from typing import Any

import numpy as np

from core import DataError


def open_context(size: int) -> tuple[Any, str]:
    """Return an OpenGL context for pictures of `size` x `size` pixels, and OpenGL's version.

    robosuite, once imported, has chosen the library by the variable MUJOCO_GL: EGL on Linux, if it
    is not set. Raises DataError if OpenGL cannot be opened.
    """
    backend = os.environ.get("MUJOCO_GL", "").lower()
    module = backend if backend in ("egl", "osmesa") else "gl_context"
    # Mesa's software renderer reads this setting: one process per core draws already
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        context = import_module(f"mujoco.{module}").GLContext(size, size)
        context.make_current()
        gl = import_module("OpenGL.GL")
        opengl: bytes | None = gl.glGetString(gl.GL_VERSION)  # images depend on it
        if opengl is None:
            raise RuntimeError("there is no display")
        return context, opengl.decode()
    except Exception as error:  # noqa: BLE001 - without OpenGL, many types of error are raised
        reason = " ".join(str(error).split())
        raise DataError(
            f"robosuite is drawn by OpenGL, which mujoco.{module} cannot open ({reason}); "
            "on Debian or Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri "
            "(or libosmesa6, and set MUJOCO_GL=osmesa)"
        ) from None


class Renderer:
    """Draws one MuJoCo model as robosuite does, in a buffer that is no larger than the picture."""

    def __init__(self, model: Any, size: int) -> None:
        self._mujoco = mujoco = import_module("mujoco")
        # MuJoCo reads the size only when it creates the rendering context
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self._model, self._camera = model, mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._option, self._scene = mujoco.MjvOption(), mujoco.MjvScene(model, maxgeom=1000)
        self._option.geomgroup[0] = 0  # the shapes for collisions
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._viewport = mujoco.MjrRect(0, 0, size, size)

    def draw(self, data: Any, camera: str) -> np.ndarray:
        """Draw what a camera sees, (Y X 3) uint8, the top first: OpenGL begins at the bottom."""
        mujoco, viewport = self._mujoco, self._viewport
        self._camera.fixedcamid = self._model.camera(camera).id
        mujoco.mj_camlight(self._model, data)
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._option,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        # another renderer may have bound its own buffer
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(viewport, self._scene, self._context)
        image = np.empty((viewport.height, viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, viewport, self._context)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Free what OpenGL holds; the context must be current."""
        self._context.free()
