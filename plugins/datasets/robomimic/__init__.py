"""HDF5 files of robomimic (https://github.com/ARISE-Initiative/robomimic) and LIBERO."""

from core import Register, hookimpl
from plugins.datasets.robomimic.source import Robomimic, RobomimicConfig
from plugins.datasets.robomimic.writer import RobomimicWriter, RobomimicWriterConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "robomimic"."""
    register("robomimic", RobomimicConfig, Robomimic)


@hookimpl
def register_exporters(register: Register) -> None:
    """Register "robomimic"."""
    register("robomimic", RobomimicWriterConfig, RobomimicWriter)
