"""The environment: its tasks, and what its numbers and pictures are called.

Zhu et al. 2020, "robosuite: A Modular Simulation Framework and Benchmark for Robot Learning",
https://arxiv.org/abs/2009.12293. Names and conventions are those of robosuite's own observations,
which robomimic's files record.
"""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Le

from core import DataError, did_you_mean
from core.environments import Environment, Observation, Task
from core.episodes import ActionConvention, Camera, Gripper, StoreInfo
from core.formats import dimension_names
from plugins.environments.robosuite.experts import EXPERTS
from plugins.environments.robosuite.pictures import open_context
from plugins.environments.robosuite.simulation import PROPRIO, RATE, Simulation, import_robosuite

TaskName = Literal["Lift", "Stack"]
CameraName = Literal[
    "agentview", "frontview", "birdview", "sideview", "robot0_robotview", "robot0_eye_in_hand"
]
INSTRUCTIONS = {
    "Lift": (
        "lift the red cube",
        "pick up the red cube",
        "raise the cube off the table",
        "grasp the red cube and lift it",
    ),
    "Stack": (
        "stack the red cube on the green cube",
        "put the red cube on top of the green one",
        "place the red cube on the green one",
        "pick up the red cube and put it on the green cube",
    ),
}
HELD_OUT = {
    "Lift": ("pick the red cube up off the table", "grasp the cube and raise it"),
    "Stack": ("place the red cube on top of the green cube", "put the red cube on the green one"),
}


@dataclass(frozen=True)
class RobosuiteConfig:
    """Tasks and pictures."""

    tasks: tuple[TaskName, ...] = ("Lift", "Stack")
    """robosuite's tasks: "Lift" the cube by 4 cm, "Stack" the red cube on the green one."""
    frame: Literal["base", "world"] = "base"
    """the coordinates of an action: "base" is robosuite's default since version 1.5, and "world"
    what files of earlier versions are imported with. Both give the same movements, since the base
    is not turned.
    """
    cameras: tuple[CameraName, ...] = ("agentview", "robot0_eye_in_hand")
    """robosuite's cameras; the policy knows each as NAME_image."""
    image_size: Annotated[int, Gt(0), Le(2048)] = 84
    """height and width of the images in pixels; robomimic's have 84."""
    horizon: Annotated[int, Gt(0)] = 400
    """control steps that an attempt may take; robomimic's evaluations of Lift have 400."""


class Robosuite(Environment):
    """Lift and Stack with a Panda arm and its two fingers, and with scripted experts.

    A seed decides the size and the place of the cubes, and the pose in which the arm begins. A task
    is done at the first step that robosuite calls a success.

    Raises DataError if robosuite or OpenGL is missing, or has a version that does not fit.
    """

    def __init__(self, config: RobosuiteConfig) -> None:
        self._config, self._robosuite = config, import_robosuite()
        self._gl, opengl = open_context(config.image_size)
        self._simulations: dict[str, Simulation] = {}
        self.tasks = {
            name: Task(name, INSTRUCTIONS[name], config.horizon, HELD_OUT[name])
            for name in config.tasks
        }
        self.info = _make_info(config)
        self.versions = {package: version(package) for package in ("robosuite", "mujoco")}
        self.versions |= {"opengl": opengl}

    def reset(self, task: str, seed: int) -> None:
        """Set up the scene of (task, seed); raises DataError for an unknown task."""
        if task not in self.tasks:
            raise DataError(
                f"robosuite has no task '{task}' here{did_you_mean(task, [*self.tasks])}"
            )
        self._gl.make_current()
        if task not in self._simulations:
            config = self._config
            self._simulations[task] = Simulation(
                self._robosuite, task, config.frame, config.image_size
            )
        self._task, self._current = task, self._simulations[task]
        self._current.reset(seed)

    def step(self, action: np.ndarray) -> bool:
        """Apply an action (7) for 1/20 s: x, y, z, rx, ry, rz, each up to +-1, and the gripper.

        Raises DataError for an action that has another shape or is not finite.
        """
        self.info.action.check(action)
        return self._current.step(np.clip(action, -1, 1))

    def is_done(self) -> bool:
        """Return whether robosuite calls the present state a success."""
        return self._current.is_done()

    def observe(self) -> Observation:
        """Draw the cameras, upright; the proprioception is the hand's pose and its fingers."""
        self._gl.make_current()
        images = {f"{name}_image": self._current.draw(name) for name in self._config.cameras}
        return Observation(images, self._current.proprio())

    def expert(self) -> np.ndarray:
        """Return the action (7) of Joinery's scripted expert for the present state."""
        return EXPERTS[self._task](self._current.environment)

    def close(self) -> None:
        """Free the simulations, then the OpenGL context that draws them."""
        self._gl.make_current()
        for simulation in self._simulations.values():
            simulation.close()
        self._simulations.clear()
        self._gl.free()


def _make_info(config: RobosuiteConfig) -> StoreInfo:
    """Describe the controller OSC_POSE, and robosuite's observations by their own names.

    An action of 1.0 asks for 5 cm, or for half a radian about an axis; positive closes the gripper.
    """
    size = config.image_size
    return StoreInfo(
        fps=RATE,
        cameras={f"{name}_image": Camera(size, size) for name in config.cameras},
        action=ActionConvention(
            names=("x", "y", "z", "rx", "ry", "rz", "gripper"),
            mode="delta",
            frame=config.frame,
            rotation="axis_angle",
            scale=(0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0),
            rate=RATE,
            grippers=(Gripper(dimension=6, kind="binary", closed=1.0, open=-1.0),),
            units=("m", "m", "m", "rad", "rad", "rad", "1"),
        ),
        proprio=dimension_names([*PROPRIO.items()]),
        proprio_units=("m",) * 3 + ("1",) * 4 + ("m",) * 2,
        origin="robosuite (https://github.com/ARISE-Initiative/robosuite), MIT licence",
    )
