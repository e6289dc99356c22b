"""HDF5 files of robomimic (https://github.com/ARISE-Initiative/robomimic) and LIBERO."""

from core import Register, hookimpl
from plugins.datasets.robomimic.single import Hdf5, Hdf5Config
from plugins.datasets.robomimic.source import Robomimic, RobomimicConfig
from plugins.datasets.robomimic.writer import RobomimicWriter, RobomimicWriterConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "robomimic" and "hdf5"."""
    register("robomimic", RobomimicConfig, Robomimic)
    register("hdf5", Hdf5Config, Hdf5)


@hookimpl
def register_exporters(register: Register) -> None:
    """Register "robomimic"."""
    register("robomimic", RobomimicWriterConfig, RobomimicWriter)
