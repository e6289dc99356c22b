"""Datasets of LeRobot (https://github.com/huggingface/lerobot): a reader and a writer."""

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
