"""LeRobot (https://github.com/huggingface/lerobot): datasets of its formats 2.0, 2.1 and 3.0."""

from core import Register, hookimpl
from plugins.datasets.lerobot.source import LeRobot, LeRobotConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "lerobot"."""
    register("lerobot", LeRobotConfig, LeRobot)
