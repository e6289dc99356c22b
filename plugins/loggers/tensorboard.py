"""TensorBoard, by Lightning Fabric's logger."""

from dataclasses import dataclass
from pathlib import Path

from core import Logger, Register, hookimpl


@dataclass(frozen=True)
class TensorBoardConfig:
    """TensorBoard's event files; without keys."""


def build_tensorboard(_: TensorBoardConfig, *, run: Path, first: int) -> Logger:
    """Writes RUN/tensorboard, which `tensorboard --logdir RUN` shows.

    Figures of steps after `first`, which an interrupted run wrote, are hidden.
    """
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    logger: Logger = TensorBoardLogger(
        run, name="", version="tensorboard", default_hp_metric=False, purge_step=first + 1
    )
    return logger


@hookimpl
def register_loggers(register: Register) -> None:
    """Register "tensorboard"."""
    register("tensorboard", TensorBoardConfig, build_tensorboard)
