"""A 7-DoF tabletop that needs nothing but MuJoCo's wheel: blocks, a drawer, a slider, a button and
a lamp.

Actions follow CALVIN (Mees et al. 2022): relative, in the world frame, 2 cm and 0.05 rad per 1.0,
gripper -1 to close and +1 to open. Images come from casting rays on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le

from core import DataError, Register, did_you_mean, hookimpl
from core.environments import Environment, Observation
from core.episodes import ActionConvention, Camera, Gripper, StoreInfo
from plugins.environments.tabletop.camera import RayCamera, look_at
from plugins.environments.tabletop.placement import Start, before, chain, start
from plugins.environments.tabletop.scene import RATE, ROTATION, TRANSLATION, Scene, State
from plugins.environments.tabletop.tasks import TASKS, TabletopTask

STATIC_AT, STATIC_LOOKS_AT = np.array([0.0, -0.36, 0.52]), np.array([0.0, -0.01, 0.0])
WRIST_AT, WRIST_LOOKS_AT = (
    np.array([0.0, -0.075, 0.03]),
    np.array([0.0, 0.012, -0.012]),
)  # in the hand's frame
STATIC_VIEW, WRIST_VIEW = 50.0, 75.0  # fields of view, degrees


@dataclass(frozen=True)
class TabletopConfig:
    """How the table is seen."""

    image_size: Annotated[int, Ge(16)] = 64
    """rows and columns of both cameras' images, pixels."""
    cameras: tuple[Literal["static", "wrist"], ...] = ("static", "wrist")
    """which cameras there are: "static" looks at the table, "wrist" between the fingers."""
    continued: Annotated[float, Ge(0), Le(1)] = 0.0
    """share of episodes that begin where another task has just been done, as in a chain of tasks.
    """


class Tabletop(Environment):
    """Language tasks on a table, with contact physics: objects are held by friction."""

    def __init__(self, config: TabletopConfig) -> None:
        self.info = StoreInfo(
            fps=RATE,
            cameras={name: Camera(config.image_size, config.image_size) for name in config.cameras},
            action=ActionConvention(
                names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
                mode="delta",
                frame="world",
                rotation="euler_xyz",
                scale=(TRANSLATION,) * 3 + (ROTATION,) * 3 + (1.0,),
                rate=RATE,
                grippers=(Gripper(dimension=6, kind="binary", closed=-1.0, open=1.0),),
            ),
            proprio=("tcp_x", "tcp_y", "tcp_z", "roll", "pitch", "yaw", "gripper_opening"),
            origin="Joinery's tabletop, simulated by MuJoCo",
        )
        self.tasks = {name: task.task for name, task in TASKS.items()}
        self.scene = Scene()
        self.versions = {"mujoco": self.scene.version}
        self._static = RayCamera(self.scene.model, config.image_size, STATIC_VIEW, floor="table")
        self._wrist = RayCamera(self.scene.model, config.image_size, WRIST_VIEW, floor="table")
        self._continued = config.continued
        self._asked: tuple[TabletopTask, State] | None = (
            None  # the task, and the state in which it was asked for
        )

    def reset(self, task: str, seed: int) -> None:
        """Draw blocks, fixtures and the gripper's pose anew; raises DataError for an unknown task."""
        _find(task)
        random = np.random.default_rng([seed, list(TASKS).index(task)])
        if random.random() < self._continued:
            while not self._precede(task, random):
                pass
        else:
            self._arrange(start([task], random))
        self.proceed(task)

    def begin_chain(self, seed: int) -> Sequence[str]:
        """Draw five tasks that are possible one after the other, and a scene for them."""
        random = np.random.default_rng([seed, len(TASKS)])
        tasks = chain(random)
        self._arrange(start(tasks, random))
        return tasks

    def proceed(self, task: str) -> None:
        """Measure success from the present state on; raises DataError for an unknown task."""
        self._asked = _find(task), self.scene.state()

    def step(self, action: np.ndarray) -> bool:
        """Move the gripper for 50 ms; raises DataError for an action of another shape or that is
        not finite.
        """
        task, before = self._present()
        self.info.action.check(action)
        self.scene.act(action)
        return task.done(before, self.scene.state())

    def observe(self) -> Observation:
        """Render the cameras, and read the gripper's pose and opening."""
        self.scene.refresh()
        state = self.scene.state()
        proprio = np.array([*state.tcp, *state.euler, state.opening], np.float32)
        draw = {"static": self._draw_static, "wrist": self._draw_wrist}
        return Observation({name: draw[name]() for name in self.info.cameras}, proprio)

    def expert(self) -> np.ndarray:
        """Return what the task's script does now."""
        task, _ = self._present()
        return task.expert(self.scene.state())

    def _present(self) -> tuple[TabletopTask, State]:
        """Return the task that was asked for, and the state in which it was."""
        if self._asked is None:
            raise DataError("tabletop has no task yet; reset comes first")
        return self._asked

    def _precede(self, task: str, random: np.random.Generator) -> bool:
        """Let the expert do another task first; return whether it did."""
        other = before(task, random)
        self._arrange(start([other, task], random))
        self.proceed(other)
        return any(self.step(self.expert()) for _ in range(self.tasks[other].max_steps))

    def _arrange(self, where: Start) -> None:
        self.scene.arrange(where.tcp, where.yaw, where.open_gripper, where.blocks, where.fixtures)

    def _draw_static(self) -> np.ndarray:
        return self._static.render(self.scene.data, STATIC_AT, look_at(STATIC_AT, STATIC_LOOKS_AT))

    def _draw_wrist(self) -> np.ndarray:
        hand = self.scene.data.body("hand")
        rotation = hand.xmat.reshape(3, 3)
        axes = rotation @ look_at(WRIST_AT, WRIST_LOOKS_AT)
        return self._wrist.render(self.scene.data, hand.xpos + rotation @ WRIST_AT, axes)


def _find(task: str) -> TabletopTask:
    if task not in TASKS:
        raise DataError(f"tabletop has no task '{task}'{did_you_mean(task, list(TASKS))}")
    return TASKS[task]


@hookimpl
def register_environments(register: Register) -> None:
    """Register "tabletop"."""
    register("tabletop", TabletopConfig, Tabletop)
