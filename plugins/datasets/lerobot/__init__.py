"""LeRobot (https://github.com/huggingface/lerobot): reads datasets of its formats 2.0, 2.1 and 3.0,
writes 3.0.
"""

from core import Register, hookimpl
from plugins.datasets.lerobot.source import LeRobot, LeRobotConfig
from plugins.datasets.lerobot.writer import LeRobotWriter, LeRobotWriterConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "lerobot"."""
    register("lerobot", LeRobotConfig, LeRobot)


@hookimpl
def register_exporters(register: Register) -> None:
    """Register "lerobot"."""
    register("lerobot", LeRobotWriterConfig, LeRobotWriter)
