"""A probe over a table with a block, with a colour camera, a depth camera and a force sensor."""

from dataclasses import dataclass

import numpy as np

from core import hookimpl
from core.environments import Environment, Observation, Task
from core.episodes import ActionConvention, Camera, Feature, StoreInfo

TABLE_WIDTH = 0.4  # metres
CAMERA_HEIGHT = 0.5  # metres above the table
STEP = 0.01  # metres, the largest move of one action
GIVE = 0.01  # metres that the probe can sink into a surface
STIFFNESS = 1000.0  # N/m
PRESS_FORCE = 5.0  # newtons that count as pressing
HALF_BLOCK = 0.03  # metres
CLEARANCE = 0.02  # metres


def describe(size):
    """Describe the data of this rig, with images of size x size pixels."""
    return StoreInfo(
        fps=10.0,
        cameras={"top": Camera(size, size)},
        action=ActionConvention(
            ("x", "z"), mode="delta", frame="world", rotation="none", scale=(STEP, STEP), rate=10.0
        ),
        proprio=("x", "z"),
        origin="a probe over a table",
        features={
            "depth": Feature((size, size, 1), "uint16", "depth", "mm"),
            "force": Feature((6,), "float32", "force", "N"),
        },
    )


@dataclass(frozen=True)
class PressConfig:
    """A table with a block."""

    size: int = 24
    """height and width of the images, pixels."""


class Press(Environment):
    """The task is to press a block, whose place and height depend on the seed."""

    def __init__(self, config):
        self.info = describe(config.size)
        self.columns = (np.arange(config.size) + 0.5) * TABLE_WIDTH / config.size  # metres
        self.tasks = {
            "press": Task("press", ("press the block", "push down on the block"), max_steps=80)
        }
        self.versions = {}

    def reset(self, task, seed):
        random = np.random.default_rng(seed)
        self.block, self.height = random.uniform(0.1, 0.3), random.uniform(0.02, 0.08)
        self.x, self.z = TABLE_WIDTH / 2, 0.15

    def step(self, action):
        dx, dz = STEP * np.clip(action, -1, 1)
        self.x = float(np.clip(self.x + dx, 0, TABLE_WIDTH))
        self.z = float(np.clip(self.z + dz, self.surface(self.x) - GIVE, 0.2))
        return bool(abs(self.x - self.block) < HALF_BLOCK and self.force() >= PRESS_FORCE)

    def observe(self):
        size = len(self.columns)
        heights = np.where(np.abs(self.columns - self.block) < HALF_BLOCK, self.height, 0.0)
        image = np.zeros((size, size, 3), np.uint8)
        image[:, heights > 0, 0] = 200
        image[:, np.abs(self.columns - self.x) < HALF_BLOCK / 2] = 255
        depth = np.round(1000 * (CAMERA_HEIGHT - heights)).astype(np.uint16)
        return Observation(
            {"top": image},
            np.array([self.x, self.z], np.float32),
            {
                "depth": np.repeat(depth[None, :, None], size, axis=0),
                "force": np.array([0, 0, self.force(), 0, 0, 0], np.float32),
            },
        )

    def expert(self):
        distance = self.block - self.x
        if abs(distance) < HALF_BLOCK / 2:
            return np.array([0, -1], np.float32)
        if self.z < self.height + CLEARANCE:
            return np.array([0, 1], np.float32)
        return np.array([np.clip(distance / STEP, -1, 1), 0], np.float32)

    def surface(self, x):
        """Return the height of the surface below x, metres."""
        return self.height if abs(x - self.block) < HALF_BLOCK else 0.0

    def force(self):
        """Return the force on the tip of the probe, newtons upwards."""
        return STIFFNESS * max(0.0, self.surface(self.x) - self.z)


@hookimpl
def register_environments(register):
    register("depth_force_press", PressConfig, Press)
