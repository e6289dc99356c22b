"""The environment, in which a task's name and a seed determine an episode on a table.

Actions follow CALVIN (Mees et al. 2022). They are relative motions in the world frame. A value of
1.0 moves the hand by 2 cm or turns it by 0.05 rad; the gripper closes at -1 and opens at +1. Images
are drawn by casting rays on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le

from core import DataError, did_you_mean
from core.environments import Environment, Observation
from core.episodes import ActionConvention, Camera, Gripper, StoreInfo
from plugins.environments.tabletop.camera import RayCamera, look_at
from plugins.environments.tabletop.definition import TabletopTask
from plugins.environments.tabletop.placement import (
    draw_chain,
    draw_previous_task,
    draw_start,
)
from plugins.environments.tabletop.scene import (
    RATE,
    ROTATION,
    TRANSLATION,
    Scene,
    Start,
    State,
)
from plugins.environments.tabletop.shows import Past, Show
from plugins.environments.tabletop.tasks import TASKS

# Where the cameras are, and the points they look at, in metres; "wrist" is in the hand's frame.
STATIC_POSITION, STATIC_TARGET = np.array([0.0, -0.36, 0.52]), np.array([0.0, -0.01, 0.0])
WRIST_POSITION, WRIST_TARGET = np.array([0.0, -0.075, 0.03]), np.array([0.0, 0.012, -0.012])
STATIC_VIEW, WRIST_VIEW = 50.0, 75.0  # fields of view, degrees

# {task or CHAINS: number}; the number and a seed determine what is drawn, so no number may change.
# The tasks that need memory were added last, so they come after the chains.
CHAINS = "chains"
_PLAIN = [name for name, task in TASKS.items() if task.memory is None]
_MEMORY = [name for name, task in TASKS.items() if task.memory is not None]
STREAMS = {name: number for number, name in enumerate([*_PLAIN, CHAINS, *_MEMORY])}


@dataclass(frozen=True)
class TabletopConfig:
    """What the cameras show, and how episodes begin."""

    image_size: Annotated[int, Ge(16)] = 64
    """rows and columns of both cameras' images, pixels."""
    cameras: tuple[Literal["static", "wrist"], ...] = ("static", "wrist")
    """the cameras: "static" looks at the table, "wrist" looks between the fingers."""
    continued: Annotated[float, Ge(0), Le(1)] = 0.0
    """share of episodes that begin right after another task was done, as in a chain of tasks."""


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
                units=("m",) * 3 + ("rad",) * 3 + ("1",),
            ),
            proprio=("tcp_x", "tcp_y", "tcp_z", "roll", "pitch", "yaw", "gripper_opening"),
            proprio_units=("m",) * 3 + ("rad",) * 3 + ("m",),
            origin="Joinery's tabletop, simulated by MuJoCo",
        )
        self.tasks = {name: task.task for name, task in TASKS.items()}
        self.scene = Scene()
        self.versions = {"mujoco": self.scene.version}
        self._static = RayCamera(self.scene.model, config.image_size, STATIC_VIEW, floor="table")
        self._wrist = RayCamera(self.scene.model, config.image_size, WRIST_VIEW, floor="table")
        self._continued = config.continued
        # the current task, and the state in which it began
        self._task: tuple[TabletopTask, State] | None = None
        self._past = Past()  # of the current task

    def reset(self, task: str, seed: int) -> None:
        """Arrange a random scene in which the task is possible.

        A task that needs memory never begins right after another one. Raises DataError for an
        unknown task.
        """
        memory = _find(task).memory
        random = np.random.default_rng([seed, STREAMS[task]])
        if memory is not None:
            self.begin(task, *memory.prepare(draw_start([task], random), random))
            return
        if random.random() < self._continued:
            while not self._do_previous_task(task, random):
                pass
        else:
            self._arrange(draw_start([task], random))
        self.proceed(task)

    def begin(self, task: str, start: Start, show: Show) -> None:
        """Begin a task that needs memory, in a given scene and with a given show.

        Raises DataError for an unknown task.
        """
        found = _find(task)
        self._arrange(start)
        self._begin(found, show)

    def begin_chain(self, seed: int) -> Sequence[str]:
        """Choose five random tasks that can be done in this order, and arrange a scene for them."""
        random = np.random.default_rng([seed, STREAMS[CHAINS]])
        tasks = draw_chain(random)
        self._arrange(draw_start(tasks, random))
        return tasks

    def proceed(self, task: str) -> None:
        """Begin a task in the present state.

        Raises DataError for an unknown task, and for one that needs memory, because its show needs
        a scene of its own.
        """
        found = _find(task)
        if found.memory is not None:
            raise DataError(f"'{task}' needs memory and begins only with reset, not in a chain")
        self._begin(found, Show())

    def step(self, action: np.ndarray) -> bool:
        """Move the gripper for one control step of 50 ms; return whether the task is done.

        Raises DataError for an action that has another shape or is not finite.
        """
        task, before = self._current_task()
        self.info.action.check(action)
        self.scene.act(action)
        if task.memory is not None:
            self._past = task.memory.follow(self.state(), self.scene.presses)
            self.scene.perform(self._past.show, self._past.moment)
        return task.done(before, self.state())

    def observe(self) -> Observation:
        """Render the cameras, and read the gripper's pose and opening."""
        self.scene.refresh()
        state = self.scene.state()
        proprio = np.array([*state.tcp, *state.euler, state.opening], np.float32)
        images = {}
        if "static" in self.info.cameras:
            axes = look_at(STATIC_POSITION, STATIC_TARGET)
            images["static"] = self._static.render(self.scene.data, STATIC_POSITION, axes)
        if "wrist" in self.info.cameras:
            hand = self.scene.data.body("hand")
            rotation = hand.xmat.reshape(3, 3)
            position = hand.xpos + rotation @ WRIST_POSITION
            axes = rotation @ look_at(WRIST_POSITION, WRIST_TARGET)
            images["wrist"] = self._wrist.render(self.scene.data, position, axes)
        return Observation({name: images[name] for name in self.info.cameras}, proprio)

    def expert(self) -> np.ndarray:
        """Return the action of the task's scripted expert."""
        task, _ = self._current_task()
        return task.expert(self.state())

    def state(self) -> State:
        """Return the present state, with what has happened since the task began."""
        return replace(self.scene.state(), past=self._past)

    def _begin(self, task: TabletopTask, show: Show) -> None:
        self._past = Past(show)
        self.scene.perform(show, 0)
        self._task = task, self.state()

    def _current_task(self) -> tuple[TabletopTask, State]:
        """Return the current task, and the state in which it began."""
        if self._task is None:
            raise DataError("tabletop has no task yet; reset comes first")
        return self._task

    def _do_previous_task(self, task: str, random: np.random.Generator) -> bool:
        """Let the expert do another task first; return whether it succeeded."""
        other = draw_previous_task(task, random)
        self._arrange(draw_start([other, task], random))
        self.proceed(other)
        return any(self.step(self.expert()) for _ in range(self.tasks[other].max_steps))

    def _arrange(self, start: Start) -> None:
        self.scene.arrange(start.tcp, start.yaw, start.open_gripper, start.blocks, start.fixtures)


def _find(task: str) -> TabletopTask:
    if task not in TASKS:
        raise DataError(f"tabletop has no task '{task}'{did_you_mean(task, list(TASKS))}")
    return TASKS[task]
