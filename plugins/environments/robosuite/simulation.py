"""One task of robosuite, whose scene a seed decides alone."""

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from zlib import crc32

import numpy as np

from core import DataError
from plugins.environments.robosuite.pictures import Renderer

ROBOT = "Panda"
RATE = 20.0  # control steps per second, robosuite's default
# robosuite's observations of the hand: {name: numbers}. The position is that between the
# fingertips; the quaternion, x y z w, is that of the hand's body.
PROPRIO = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
# {package: (first version that works, first one that does not)}. MuJoCo 3.10 takes other arguments
# for the mass matrix than robosuite gives.
VERSIONS = {"robosuite": ("1.5.1", "1.6"), "mujoco": ("3.3", "3.10")}
INSTALL = "pip install 'joinery[robosuite]'"
# half the shortest and the longest edge of Lift's cube, in metres
LIFT_SIZES = (0.020, 0.022)


def import_robosuite() -> Any:
    """Return robosuite; raises DataError if it is missing or a version does not fit."""
    _check_versions()
    # as it is imported, robosuite tells of settings and robots that are not needed here
    logging.getLogger("robosuite_logs").addFilter(_is_error)
    try:
        return import_module("robosuite")
    except ImportError as error:
        raise DataError(f"robosuite cannot be imported ({error}); {INSTALL}") from None


def _check_versions() -> None:
    for package, (first, beyond) in VERSIONS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            raise DataError(f"{package} is not installed; {INSTALL}") from None
        if not _numbers(first) <= _numbers(found) < _numbers(beyond):
            raise DataError(
                f"{package} {found} does not fit: robosuite's tasks need {package} {first} or "
                f"newer, below {beyond}; {INSTALL}"
            )


def _numbers(release: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (3, 10) of "3.10.0rc1"."""
    parts = release.split(".")
    count = next((i for i, part in enumerate(parts) if not part.isdecimal()), len(parts))
    return tuple(map(int, parts[:count]))


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


class Simulation:
    """A task of robosuite; the first `draw` makes its renderer.

    frame: the coordinates of actions, as robosuite calls them: "base" or "world".
    size: rows and columns of pictures.
    """

    def __init__(self, robosuite: Any, task: str, frame: str, size: int) -> None:
        controller = robosuite.load_composite_controller_config(robot=ROBOT)
        controller["body_parts"]["right"]["input_ref_frame"] = frame
        self.environment = robosuite.make(
            task,
            robots=ROBOT,
            controller_configs=controller,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            renderer="mujoco",
            control_freq=RATE,
            ignore_done=True,
            hard_reset=False,
            seed=0,
        )
        for name in self.environment.observation_names:
            self.environment.modify_observable(name, "enabled", name in PROPRIO)
        self._mujoco, self._task, self._size = import_module("mujoco"), task, size
        self._renderer: Renderer | None = None

    def reset(self, seed: int) -> None:
        """Draw the cubes' size and place and the arm's pose; the task and the seed decide them."""
        environment = self.environment
        fresh = np.random.default_rng([crc32(self._task.encode()), seed])
        # robosuite's parts share this generator, so it gets a state instead of being replaced
        environment.rng.bit_generator.state = fresh.bit_generator.state
        if self._task == "Lift":
            self._resize(environment.cube, environment.rng.uniform(*LIFT_SIZES, 3))
        environment.reset()

    def _resize(self, cube: Any, half: np.ndarray) -> None:
        """Give a cube other edges, of which `half` (3) is the half, and the mass that goes with it.

        robosuite draws the size when it builds the scene, which takes a second. Here the scene is
        built once, and every number that depends on the size follows.
        """
        model, data = self.environment.sim.model._model, self.environment.sim.data._data
        body = model.body(cube.root_body)
        geoms = np.flatnonzero(model.geom_bodyid == body.id)
        body.mass = cube.density * 8 * half.prod()
        body.inertia = body.mass / 3 * ((half**2).sum() - half**2)
        model.geom_size[geoms], model.geom_rbound[geoms] = half, np.linalg.norm(half)
        model.geom_aabb[geoms, 3:] = half
        boxes = model.body_bvhadr[body.id] + np.arange(model.body_bvhnum[body.id])
        model.bvh_aabb[boxes, 3:] = half
        cube.size = half
        self._mujoco.mj_setConst(model, data)

    def step(self, action: np.ndarray) -> bool:
        """Apply an action (7) for 1/20 s; return whether the task is done."""
        self.environment.step(action)
        done = self.is_done()
        # robosuite leaves the places of bodies one step of physics, 2 ms, behind the joints
        self._mujoco.mj_kinematics(
            self.environment.sim.model._model, self.environment.sim.data._data
        )
        return done

    def is_done(self) -> bool:
        """Return whether robosuite calls the present state a success."""
        return bool(self.environment._check_success())

    def proprio(self) -> np.ndarray:
        """Return the observations that `PROPRIO` names, one after the other, (9) float32."""
        measured = self.environment._get_observations(force_update=True)
        return np.concatenate([measured[name] for name in PROPRIO]).astype(np.float32)

    def draw(self, camera: str) -> np.ndarray:
        """Draw (Y X 3) uint8, upright; the OpenGL context must be current."""
        sim = self.environment.sim
        if self._renderer is None:  # the first image needs a renderer
            self._renderer = Renderer(sim.model._model, self._size)
        return self._renderer.draw(sim.data._data, camera)

    def close(self) -> None:
        """Free the simulation and its renderer; the OpenGL context must be current."""
        if self._renderer is not None:
            self._renderer.close()
        self.environment.close()
