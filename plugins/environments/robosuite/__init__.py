"""robosuite's Lift and Stack: a robot arm at a table, as robomimic's demonstrations have it."""

from core import Register, hookimpl
from plugins.environments.robosuite.environment import Robosuite, RobosuiteConfig


@hookimpl
def register_environments(register: Register) -> None:
    """Register "robosuite"."""
    register("robosuite", RobosuiteConfig, Robosuite)
