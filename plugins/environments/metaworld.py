"""Meta-World: fifty tasks of a Sawyer arm at a table, with images drawn by OpenGL.

Yu et al. 2019, https://arxiv.org/abs/1910.10897. As in LeRobot, the camera is Meta-World's corner2,
moved to the position of Seo et al. 2022, and images are upright.
"""

import os
import sys
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32

import numpy as np
from annotated_types import Gt, Le

from core import DataError, Register, did_you_mean, hookimpl
from core.environments import Environment, Observation, Task
from core.episodes import ActionConvention, Camera, Gripper, StoreInfo

TASKS = Path(__file__).with_name("metaworld_tasks.toml")
MAX_STEPS = 500  # Meta-World's own limit
# Meta-World's name for this camera is "corner2". Joinery moves the camera and turns its images
# upright, so the camera has another name here.
CAMERA = "corner2_upright"
CAMERA_POSITION = (0.75, 0.075, 0.7)  # metres, in the world's frame
# Meshes of the Sawyer arm and its pedestal; they have nearly all triangles of every scene.
ARM_MESHES = ("pedestal", "base", "head", "l0", "l1", "l2", "l3", "l4", "l5", "l6", "eGripperBase")
# Maximum number of simulations in memory. A simulation with its renderer takes 50 to 100 MB, and
# making it again takes 0.3 s.
MAX_SIMULATIONS = 32


@dataclass(frozen=True)
class MetaWorldConfig:
    """The tasks, and the size of the images."""

    benchmark: Literal["mt10", "mt50"] = "mt10"
    """which tasks: "mt10" for ten of them, "mt50" for all fifty."""
    image_size: Annotated[int, Gt(0), Le(2048)] = 96
    """height and width of the images in pixels."""


class MetaWorld(Environment):
    """Fifty tasks of a Sawyer arm at a table; images show the goal.

    A seed decides where the objects and the goal are. A task is done at the first step that
    Meta-World calls a success.

    Raises DataError if Meta-World or OpenGL is missing.
    """

    def __init__(self, config: MetaWorldConfig) -> None:
        self._metaworld, self._gl, opengl = _import_metaworld(config.image_size)
        self._size = config.image_size
        # {task: simulation}; the simulation that was used last is at the end
        self._simulations: dict[str, _Simulation] = {}
        environments = self._metaworld.env_dict
        names = environments.MT50_V3 if config.benchmark == "mt50" else environments.MT10_V3
        self.tasks = {name: task for name, task in read_tasks().items() if name in names}
        self.info = _make_info(config.image_size)
        self.versions = {
            package: version(package) for package in ("metaworld", "mujoco", "gymnasium")
        }
        self.versions |= {"opengl": opengl}

    def reset(self, task: str, seed: int) -> None:
        """Place objects and goal where the seed says; raises DataError for an unknown task."""
        if task not in self.tasks:
            raise DataError(f"metaworld has no task '{task}'{did_you_mean(task, [*self.tasks])}")
        self._gl.make_current()
        simulation = self._simulations.pop(task, None)
        if simulation is None:
            simulation = _Simulation(self._metaworld, task, self._size)
        self._current = self._simulations[task] = simulation
        if len(self._simulations) > MAX_SIMULATIONS:
            oldest = next(iter(self._simulations))
            self._simulations.pop(oldest).close()
        simulation.reset(seed)

    def step(self, action: np.ndarray) -> bool:
        """Apply an action (4): move the hand by (x, y, z) cm, and drive the gripper.

        Each value is clipped to [-1, 1]. Raises DataError for an action that has another shape or
        is not finite.
        """
        self.info.action.check(action)
        return self._current.step(action)

    def observe(self) -> Observation:
        """Draw the scene; the proprioception is the hand's position and the gripper's opening.

        The position is in metres. The opening is 1 if the gripper is fully open.
        """
        self._gl.make_current()
        proprio = self._current.state[:4].astype(np.float32)
        return Observation({CAMERA: self._current.draw()}, proprio)

    def expert(self) -> np.ndarray:
        """Return the action of Meta-World's scripted policy for the present state."""
        return self._current.expert()

    def close(self) -> None:
        """Free the simulations, then the OpenGL context that draws them."""
        self._gl.make_current()
        for simulation in self._simulations.values():
            simulation.close()
        self._simulations.clear()
        self._gl.free()


class _Simulation:
    """The simulation of one task, with its expert; the first `draw` makes the renderer."""

    def __init__(self, metaworld: Any, task: str, size: int) -> None:
        # these environments include the goal in the state, because the experts need the goal
        environments = metaworld.env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        self.environment = environments[f"{task}-goal-observable"]()
        # draw placements from the environment's generator instead of numpy's global generator
        self.environment.seeded_rand_vec = True
        self.policy = metaworld.policies.ENV_POLICY_MAP[task]()
        self.task, self.size = task, size
        self.renderer: _Renderer | None = None

    def reset(self, seed: int) -> None:
        """Place the objects and the goal at random; the task and the seed decide the placement."""
        mujoco = import_module("mujoco")
        self.environment.np_random = np.random.default_rng([crc32(self.task.encode()), seed])
        self.environment._freeze_rand_vec = False
        self.environment.reset_model()  # draws a possible placement
        # while frozen, Meta-World's `reset` keeps the placement that was just drawn
        self.environment._freeze_rand_vec = True
        self.state, _ = self.environment.reset()
        # Meta-World moves the goal after it computes the positions for the renderer. Without this
        # line, the first image would show the previous episode's goal.
        mujoco.mj_kinematics(self.environment.model, self.environment.data)

    def step(self, action: np.ndarray) -> bool:
        """Apply an action for 1/80 s; return whether the task is done."""
        clipped = np.clip(action, -1, 1).astype(np.float32)
        self.state, _, _, _, info = self.environment.step(clipped)
        return bool(info["success"])

    def expert(self) -> np.ndarray:
        """Return the scripted policy's action (4)."""
        with warnings.catch_warnings():
            # the policies warn whenever their action is larger than a step allows
            warnings.simplefilter("ignore")
            # a copy, because some policies write into the state
            action: np.ndarray = self.policy.get_action(self.state.copy())
        return action.clip(-1, 1).astype(np.float32)

    def draw(self) -> np.ndarray:
        """Draw (Y X 3) uint8, upright; the OpenGL context must be current."""
        if self.renderer is None:  # the first image needs a renderer
            self.renderer = _Renderer(self.environment.model, self.size)
        return self.renderer.draw(self.environment.data)

    def close(self) -> None:
        if self.renderer is not None:
            self.renderer.close()
        self.environment.close()


class _Renderer:
    """Draws one MuJoCo model, without shadows, reflections or anti-aliasing, and a coarser arm.

    On a CPU, shadows, reflections and anti-aliasing would take thirteen times as long. Nearly all
    of the remaining time went into the arm's 65,000 triangles, most of them smaller than a pixel.
    """

    def __init__(self, model: Any, size: int) -> None:
        self.mujoco = mujoco = import_module("mujoco")
        # MuJoCo reads these settings only when it creates the rendering context
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        camera = model.camera("corner2").id
        model.cam_pos[camera] = CAMERA_POSITION
        self.model, self.camera = model, mujoco.MjvCamera()
        self.camera.type, self.camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
        self.scene, self.option = mujoco.MjvScene(model, maxgeom=1000), mujoco.MjvOption()
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        # A pixel covers 12 mm at a distance of 1 m if the image has 96 rows.
        with _coarse_meshes(model, cell=0.75 / size):
            self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self.viewport = mujoco.MjrRect(0, 0, size, size)

    def draw(self, data: Any) -> np.ndarray:
        """Draw an upright image (Y X 3) uint8.

        The camera shows the world rotated by 180 degrees, and OpenGL reads rows from the bottom up.
        Together, these two effects mirror the image from left to right. Reversing the columns
        undoes this.
        """
        mujoco, viewport = self.mujoco, self.viewport
        image = np.empty((viewport.height, viewport.width, 3), np.uint8)
        # `data` may still hold the position that the camera had before `__init__` moved it
        mujoco.mj_camlight(self.model, data)
        mujoco.mjv_updateScene(
            self.model,
            data,
            self.option,
            None,
            self.camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self.scene,
        )
        # another renderer may have bound its own buffer
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        mujoco.mjr_render(viewport, self.scene, self.context)
        mujoco.mjr_readPixels(image, None, viewport, self.context)
        return np.ascontiguousarray(image[:, ::-1])

    def close(self) -> None:
        self.context.free()


@contextmanager
def _coarse_meshes(model: Any, cell: float) -> Iterator[None]:
    """Give the arm's meshes fewer triangles inside the block, and all of them again afterwards.

    A rendering context that is created inside the block keeps the coarse meshes. The simulation
    uses none of the changed arrays: contacts are computed from convex hulls.

    cell: vertices within the same cube of this edge, in metres, become one vertex.
    """
    arrays = [model.mesh_facenum, model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord]
    originals = [array.copy() for array in arrays]
    for name in ARM_MESHES:
        _merge_vertices(model, model.mesh(name).id, cell)
    try:
        yield
    finally:
        for array, original in zip(arrays, originals, strict=True):
            array[:] = original


def _merge_vertices(model: Any, mesh: int, cell: float) -> None:
    """Merge the vertices of each cell; drop the triangles that thereby become a line or a point.

    The remaining triangles move to the front of the mesh's arrays; their normals do not change.
    """
    first = model.mesh_vertadr[mesh]
    vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
    _, cells = np.unique(np.floor(vertices / cell), axis=0, return_inverse=True)
    cells = cells.ravel()  # numpy 2.0 returns a column
    count = np.bincount(cells)
    centre = np.stack([np.bincount(cells, axis) / count for axis in vertices.T], axis=-1)
    # the vertex nearest to the centre of its cell's vertices stands for all of them
    order = np.lexsort((((vertices - centre[cells]) ** 2).sum(axis=-1), cells))
    chosen = order[np.unique(cells[order], return_index=True)[1]]

    start, stop = model.mesh_faceadr[mesh] + np.array([0, model.mesh_facenum[mesh]])
    triangles = chosen[cells][model.mesh_face[start:stop]]
    kept = start + np.flatnonzero((triangles != np.roll(triangles, 1, axis=-1)).all(axis=-1))
    model.mesh_face[start : start + len(kept)] = triangles[kept - start]
    for corners in (model.mesh_facenormal, model.mesh_facetexcoord):
        corners[start : start + len(kept)] = corners[kept]
    model.mesh_facenum[mesh] = len(kept)


def read_tasks() -> dict[str, Task]:
    """Read all fifty tasks, with instructions by Joinery and tiers of difficulty by Seo et al."""
    tasks = tomllib.loads(TASKS.read_text(encoding="utf-8"))
    return {
        name: Task(
            name, tuple(task["instructions"]), MAX_STEPS, tuple(task["held_out"]), task["tier"]
        )
        for name, task in tasks.items()
    }


def _make_info(size: int) -> StoreInfo:
    """Describe Meta-World's conventions.

    Meta-World simulates 400 physics steps per second, and an action lasts five of them. An action
    of 1.0 moves the hand by 1 cm.
    """
    return StoreInfo(
        fps=80.0,
        cameras={CAMERA: Camera(size, size)},
        action=ActionConvention(
            names=("x", "y", "z", "gripper"),
            mode="delta",
            frame="world",
            rotation="none",
            scale=(0.01, 0.01, 0.01, 1.0),
            rate=80.0,
            grippers=(Gripper(dimension=3, kind="continuous", closed=1.0, open=-1.0),),
            units=("m", "m", "m", "1"),
        ),
        proprio=("hand_x", "hand_y", "hand_z", "gripper_opening"),
        proprio_units=("m", "m", "m", "1"),
        origin="Meta-World (https://github.com/Farama-Foundation/Metaworld), MIT licence",
    )


# ------------------------------------------------------------------------------------------- OpenGL


def _import_metaworld(size: int) -> tuple[Any, Any, str]:
    """Return Meta-World, an OpenGL context of `size` x `size` pixels, and OpenGL's version.

    Raises DataError if Meta-World or OpenGL is missing.
    """
    backend = _backend()
    # Mesa's software renderer reads this setting: it starts no threads of its own. There is one
    # process for each core, so more threads would only wait for each other.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        import_module("metaworld.policies")
        metaworld = import_module("metaworld")
        context = import_module(f"mujoco.{backend}").GLContext(size, size)
        context.make_current()
        gl = import_module("OpenGL.GL")
        opengl: bytes | None = gl.glGetString(gl.GL_VERSION)  # images depend on OpenGL's version
        if opengl is None:
            raise RuntimeError("there is no display")
        return metaworld, context, opengl.decode()
    except ModuleNotFoundError as error:
        raise DataError(
            f"Meta-World is not installed ({error}); pip install 'joinery[metaworld]'"
        ) from None
    except Exception as error:  # noqa: BLE001 - without OpenGL, many types of error are raised
        reason = " ".join(str(error).split())
        raise DataError(
            f"Meta-World is drawn by OpenGL, which mujoco.{backend} cannot open ({reason}); "
            "on Debian or Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri "
            "(or libosmesa6, and set MUJOCO_GL=osmesa)"
        ) from None


def _backend() -> str:
    """Choose MuJoCo's module for OpenGL contexts.

    The environment variable MUJOCO_GL decides. If it is not set, the choice on Linux is a module
    that needs no display.
    """
    name = os.environ.get("MUJOCO_GL", "").lower()
    if name in ("egl", "osmesa"):
        return name
    if name or not sys.platform.startswith("linux"):
        return "gl_context"  # MuJoCo's own choice
    return "osmesa" if _can_load("libOSMesa.so.8") and not _can_load("libEGL.so.1") else "egl"


def _can_load(library: str) -> bool:
    try:
        CDLL(library)
    except OSError:
        return False
    return True


@hookimpl
def register_environments(register: Register) -> None:
    """Register "metaworld"."""
    register("metaworld", MetaWorldConfig, MetaWorld)
