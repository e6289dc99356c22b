"""An environment small enough for tests: a point above two discs, and failures on demand.

Actions (x, y, gripper) move the point. A task is done when the point is on the disc of its colour
with the gripper closed. It needs numpy alone.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core import DataError, Register, hookimpl
from core.environments import Environment, Observation, StepResult, Task
from core.episodes import ActionConvention, Camera, Gripper, StoreInfo

SIZE, SPEED, RADIUS, MAX_STEPS = 16, 0.2, 0.15, 40
OPEN, CLOSED = 1.0, -1.0
CAMERAS = ("front", "wrist")
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
CHAIN_LENGTH = 5


@dataclass(frozen=True)
class Fault:
    """A failure of the environment.

    kind: "crash" ends the process with exit code 3, "raise" raises a RuntimeError, and in "hang" a
        step never ends.
    seed: of the episode that fails.
    step: the step that fails, counted from 0.
    marker: a file that the failure creates, and whose existence prevents it, so that it happens
        once; "" for a failure that happens every time.
    """

    kind: Literal["crash", "raise", "hang"]
    seed: int
    step: int = 0
    marker: str = ""


@dataclass(frozen=True)
class ToyConfig:
    """Settings of the toy environment."""

    cameras: Literal[1, 2] = 1
    """1: a camera above the floor; 2: also a camera that follows the point."""
    faults: tuple[Fault, ...] = ()
    """failures on demand."""
    fails_every: int = 0
    """the expert does nothing in every n-th seed, so that its demonstration fails; 0: never."""
    delay: float = 0.0
    """seconds to wait in each step."""
    scored: bool = False
    """whether each step has a score: minus the distance to the disc."""
    ends_after: int = 0
    """the environment ends an episode after so many steps, unless they succeed; 0: never."""
    dark: bool = False
    """whether the cameras show nothing."""


def toy_info(cameras: int = 1) -> StoreInfo:
    """The meaning of the toy's observations and actions."""
    return StoreInfo(
        fps=10.0,
        cameras={name: Camera(SIZE, SIZE) for name in CAMERAS[:cameras]},
        action=ActionConvention(
            names=("x", "y", "gripper"),
            mode="delta",
            frame="world",
            rotation="none",
            scale=(SPEED, SPEED, 1.0),
            rate=10.0,
            grippers=(Gripper(2, "binary", closed=CLOSED, open=OPEN),),
        ),
        proprio=("x", "y"),
        origin="a toy made for tests",
    )


def toy_tasks() -> dict[str, Task]:
    """One task for each colour."""
    return {
        f"reach_{colour}": Task(
            name=f"reach_{colour}",
            instructions=(
                f"reach the {colour} disc",
                f"go to {colour}",
                f"move onto the {colour} disc",
            ),
            held_out=(f"touch the {colour} disc", f"find the {colour} spot"),
            max_steps=MAX_STEPS,
            tier="warm" if colour == "red" else "cold",
        )
        for colour in COLOURS
    }


class ToyEnvironment(Environment):
    """A point, two discs and a gripper."""

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        self.info = toy_info(config.cameras)
        self.tasks = toy_tasks()
        self.versions = {"toy": "1"}
        self._arrange(0, 0)
        self._goal = "red"

    def reset(self, task: str, seed: int) -> None:
        self.proceed(task)
        self._arrange(1 + list(self.tasks).index(task), seed)

    def begin_chain(self, seed: int) -> Sequence[str]:
        self._arrange(0, seed)
        names, first = list(self.tasks), seed % len(self.tasks)
        return [names[(first + i) % len(names)] for i in range(CHAIN_LENGTH)]

    def proceed(self, task: str) -> None:
        if task not in self.tasks:
            raise DataError(f"no task is called '{task}'; known: {', '.join(self.tasks)}")
        self._goal = task.removeprefix("reach_")

    def step(self, action: np.ndarray) -> bool | StepResult:
        for fault in self.config.faults:
            if (fault.seed, fault.step) == (self._seed, self._step):
                _fail(fault)
        time.sleep(self.config.delay)
        self._step += 1
        self._point = np.clip(self._point + SPEED * np.clip(action[:2], -1, 1), -1, 1)
        self._closed = bool(action[2] < 0)
        success = self._closed and self._distance() < RADIUS
        if not (self.config.scored or self.config.ends_after):
            return success
        ended = not success and self._step == self.config.ends_after
        return StepResult(success, ended, -self._distance() if self.config.scored else None)

    def observe(self) -> Observation:
        scene = [(COLOURS[name], position, 0.3) for name, position in self._discs.items()]
        scene.append(((240, 240, 240) if self._closed else (90, 90, 90), self._point, RADIUS))
        centres = {"front": np.zeros(2), "wrist": self._point}
        if self.config.dark:
            scene = [((0, 0, 0), np.zeros(2), 10.0)]
        images = {name: _draw(scene, centres[name]) for name in self.info.cameras}
        return Observation(images, self._point.astype(np.float32))

    def expert(self) -> np.ndarray:
        if self.config.fails_every and self._seed % self.config.fails_every == 0:
            return np.array([0, 0, OPEN], np.float32)
        away = self._discs[self._goal] - self._point
        gripper = CLOSED if self._distance() < RADIUS / 2 else OPEN
        return np.array([*np.clip(away / SPEED, -1, 1), gripper], np.float32)

    def _arrange(self, kind: int, seed: int) -> None:
        random = np.random.default_rng([kind, seed])
        self._seed, self._step, self._closed = seed, 0, False
        self._point = random.uniform(-0.8, 0.8, 2)
        left, right = (
            random.uniform((-0.8, -0.8), (-0.3, 0.8)),
            random.uniform((0.3, -0.8), (0.8, 0.8)),
        )
        red, blue = (left, right) if random.random() < 0.5 else (right, left)
        self._discs = {"red": red, "blue": blue}

    def _distance(self) -> float:
        return float(np.linalg.norm(self._discs[self._goal] - self._point))


def _draw(
    scene: Sequence[tuple[tuple[int, int, int], np.ndarray, float]], centre: np.ndarray
) -> np.ndarray:
    """Return an image (Y X 3) uint8 of discs (colour, position, radius) on a grey floor."""
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    grid = np.stack(np.meshgrid(axis, axis), axis=-1) + centre
    image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    for colour, position, radius in scene:
        image[np.linalg.norm(grid - position, axis=-1) < radius] = colour
    return image


def _fail(fault: Fault) -> None:
    if fault.marker:
        try:
            Path(fault.marker).touch(exist_ok=False)  # two processes may be here at once
        except FileExistsError:
            return
    if fault.kind == "crash":
        os._exit(3)
    if fault.kind == "raise":
        raise RuntimeError("the toy broke")
    while True:
        time.sleep(1)


@hookimpl
def register_environments(register: Register) -> None:
    register("toy", ToyConfig, ToyEnvironment)
