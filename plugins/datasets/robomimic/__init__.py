"""robomimic (https://github.com/ARISE-Initiative/robomimic) and LIBERO: demonstrations of robosuite in HDF5 files."""

from core import Register, hookimpl
from plugins.datasets.robomimic.source import Robomimic, RobomimicConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "robomimic"."""
    register("robomimic", RobomimicConfig, Robomimic)
