"""Meta-World: fifty tasks of a Sawyer arm at a table (Yu et al. 2019,
https://arxiv.org/abs/1910.10897); needs OpenGL.

The camera, and that images are turned upright, are LeRobot's convention; the camera's place is that
of Seo et al. 2022.
"""

import os
import sys
import tomllib
import warnings
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
HORIZON = 500  # steps; Meta-World's own limit
# Another name than Meta-World's, which shows the same scene from elsewhere and upside down
CAMERA = "corner2_upright"
CAMERA_POSITION = (0.75, 0.075, 0.7)  # metres, in the world's frame
WORLDS_KEPT = (
    10  # simulations in memory, 50 to 150 MB each with what draws them; another takes 0.3 s to make
)
NOT_INSTALLED = "Meta-World is not installed ({error}); pip install 'joinery[metaworld]'"
NO_OPENGL = (
    "Meta-World is drawn by OpenGL, which mujoco.{backend} cannot open ({error}); on Debian or Ubuntu:"
    " apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri (or libosmesa6, and set MUJOCO_GL=osmesa)"
)


@dataclass(frozen=True)
class MetaWorldConfig:
    """Which tasks, and how large the images are."""

    benchmark: Literal["mt10", "mt50"] = "mt10"
    """"mt10" are ten tasks, "mt50" are all fifty."""
    image_size: Annotated[int, Gt(0), Le(2048)] = 96
    """height and width of the images in pixels."""


class MetaWorld(Environment):
    """Fifty tasks of a Sawyer arm at a table, drawn in every image what to reach.

    A seed is a placement of the objects and of the goal. A task is done at the first step that
    Meta-World calls a success. Raises DataError if Meta-World or OpenGL is missing.
    """

    def __init__(self, config: MetaWorldConfig) -> None:
        self._metaworld, self._gl, opengl = _import_metaworld(config.image_size)
        self._size = config.image_size
        self._worlds: dict[str, _World] = {}  # the one used last at the end
        environments = self._metaworld.env_dict
        chosen = environments.MT50_V3 if config.benchmark == "mt50" else environments.MT10_V3
        self.tasks = {name: task for name, task in read_tasks().items() if name in chosen}
        self.info = _info(config.image_size)
        self.versions = {
            package: version(package) for package in ("metaworld", "mujoco", "gymnasium")
        }
        self.versions |= {"opengl": opengl}

    def reset(self, task: str, seed: int) -> None:
        """Place objects and goal as the seed says; raises DataError for an unknown task."""
        if task not in self.tasks:
            raise DataError(f"metaworld has no task '{task}'{did_you_mean(task, [*self.tasks])}")
        self._gl.make_current()
        kept = self._worlds.pop(task) if task in self._worlds else None
        self._world = self._worlds[task] = kept or _World(self._metaworld, task, self._size)
        if len(self._worlds) > WORLDS_KEPT:
            self._worlds.pop(next(iter(self._worlds))).close()
        self._world.reset(seed)

    def step(self, action: np.ndarray) -> bool:
        """Move the hand by (x, y, z) cm and drive the gripper by the fourth number, each within
        [-1, 1].
        """
        self.info.action.check(action)
        return self._world.step(action)

    def observe(self) -> Observation:
        """Draw the scene; proprioception is the place of the hand in metres and the opening, 1 when
        wide open.
        """
        self._gl.make_current()
        return Observation({CAMERA: self._world.draw()}, self._world.state[:4].astype(np.float32))

    def expert(self) -> np.ndarray:
        """Return what Meta-World's scripted policy does; it looks at the present state alone."""
        return self._world.expert()

    def close(self) -> None:
        """Free the simulations, then what draws them."""
        self._gl.make_current()
        for world in self._worlds.values():
            world.close()
        self._worlds.clear()
        self._gl.free()


class _World:
    """The simulation of one task, and its expert."""

    def __init__(self, metaworld: Any, task: str, size: int) -> None:
        goal_observable = (
            metaworld.env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        )  # experts ask where the goal is
        self.simulation = goal_observable[f"{task}-goal-observable"]()
        self.simulation.seeded_rand_vec = (
            True  # placements by our generator, not by numpy's global one
        )
        self.policy = metaworld.policies.ENV_POLICY_MAP[task]()
        self.task, self.size = task, size
        self.picture: _Picture | None = None

    def reset(self, seed: int) -> None:
        """Place everything by a generator seeded by task and seed."""
        mujoco = import_module("mujoco")
        self.simulation.np_random = np.random.default_rng([crc32(self.task.encode()), seed])
        self.simulation._freeze_rand_vec = False
        self.simulation.reset_model()  # draws a placement, again where one is impossible
        self.simulation._freeze_rand_vec = (
            True  # `reset` arranges the scene twice: both times by that placement
        )
        self.state, _ = self.simulation.reset()
        # Meta-World places the goal last: a picture taken now would show it where it was in the
        # episode before
        mujoco.mj_kinematics(self.simulation.model, self.simulation.data)

    def step(self, action: np.ndarray) -> bool:
        """Act for an eightieth of a second."""
        self.state, _, _, _, info = self.simulation.step(np.clip(action, -1, 1).astype(np.float32))
        return bool(info["success"])

    def expert(self) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the policies warn wherever they ask for more than a step can do
            action: np.ndarray = self.policy.get_action(
                self.state.copy()
            )  # a copy: some write into what they get
        return action.clip(-1, 1).astype(np.float32)

    def draw(self) -> np.ndarray:
        """(Y X 3) uint8, upright; the OpenGL context must be current."""
        if self.picture is None:  # experts on their own need none
            self.picture = _Picture(self.simulation.model, self.size)
        return self.picture.draw(self.simulation.data)

    def close(self) -> None:
        if self.picture is not None:
            self.picture.close()
        self.simulation.close()


class _Picture:
    """Draws one model without shadows, reflections and anti-aliasing: on a CPU thirteen times
    faster than with them.
    """

    def __init__(self, model: Any, size: int) -> None:
        self.mujoco = mujoco = import_module("mujoco")
        model.vis.quality.shadowsize = model.vis.quality.offsamples = (
            0  # read when the context is made, and only then
        )
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        camera = model.camera("corner2").id
        model.cam_pos[camera] = CAMERA_POSITION
        self.model, self.camera = model, mujoco.MjvCamera()
        self.camera.type, self.camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
        self.scene, self.option = mujoco.MjvScene(model, maxgeom=1000), mujoco.MjvOption()
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self.scene.flags[
            mujoco.mjtRndFlag.mjRND_REFLECTION
        ] = 0
        self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self.view = mujoco.MjrRect(0, 0, size, size)

    def draw(self, data: Any) -> np.ndarray:
        """Return (Y X 3) uint8. The camera shows the world upside down, and OpenGL reads from the
        bottom up.
        """
        mujoco, pixels = self.mujoco, np.empty((self.view.height, self.view.width, 3), np.uint8)
        mujoco.mj_camlight(self.model, data)  # the camera may have been moved since the last step
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self.model, data, self.option, None, self.camera, everything, self.scene
        )
        mujoco.mjr_setBuffer(
            mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context
        )  # another picture's may be bound
        mujoco.mjr_render(self.view, self.scene, self.context)
        mujoco.mjr_readPixels(pixels, None, self.view, self.context)
        return np.ascontiguousarray(pixels[:, ::-1])

    def close(self) -> None:
        self.context.free()


def read_tasks() -> dict[str, Task]:
    """All fifty tasks with our instructions and the published tiers."""
    tasks = tomllib.loads(TASKS.read_text(encoding="utf-8"))
    return {
        name: Task(
            name, tuple(task["instructions"]), HORIZON, tuple(task["held_out"]), task["tier"]
        )
        for name, task in tasks.items()
    }


def _info(size: int) -> StoreInfo:
    """The physics runs at 400 Hz, five steps per action; an action of 1.0 moves the hand by one
    centimetre.
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
        ),
        proprio=("hand_x", "hand_y", "hand_z", "gripper_opening"),
        origin="Meta-World (https://github.com/Farama-Foundation/Metaworld), MIT licence",
    )


# ------------------------------------------------------------------------------------------- OpenGL


def _backend() -> str:
    """The module of MuJoCo that makes contexts: by MUJOCO_GL if set; else, on Linux, one that needs
    no display.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in ("egl", "osmesa"):
        return chosen
    if chosen or not sys.platform.startswith("linux"):
        return "gl_context"  # MuJoCo's own choice
    return "osmesa" if _loads("libOSMesa.so.8") and not _loads("libEGL.so.1") else "egl"


def _loads(library: str) -> bool:
    try:
        CDLL(library)
    except OSError:
        return False
    return True


def _import_metaworld(size: int) -> tuple[Any, Any, str]:
    """Return Meta-World, an OpenGL context of `size` x `size` pixels and OpenGL's version.

    Raises DataError if Meta-World or OpenGL is missing.
    """
    backend = _backend()
    try:
        metaworld = import_module("metaworld.policies") and import_module("metaworld")
        context = import_module(f"mujoco.{backend}").GLContext(size, size)
        context.make_current()
        return metaworld, context, _gl_version()
    except ModuleNotFoundError as error:
        raise DataError(NOT_INSTALLED.format(error=error)) from None
    except Exception as error:  # noqa: BLE001 - each way of having no OpenGL raises something else
        raise DataError(
            NO_OPENGL.format(backend=backend, error=" ".join(str(error).split()))
        ) from None


def _gl_version() -> str:
    """Pixels depend on it; raises RuntimeError where no context is current."""
    gl = import_module("OpenGL.GL")
    text: bytes | None = gl.glGetString(gl.GL_VERSION)
    if text is None:
        raise RuntimeError("there is no display")
    return text.decode()


@hookimpl
def register_environments(register: Register) -> None:
    """Register "metaworld"."""
    register("metaworld", MetaWorldConfig, MetaWorld)
