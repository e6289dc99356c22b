"""A 7-DoF tabletop that needs nothing but MuJoCo: blocks, a drawer, a slider, a button, a lamp."""

from core import Register, hookimpl
from plugins.environments.tabletop.environment import Tabletop, TabletopConfig


@hookimpl
def register_environments(register: Register) -> None:
    """Register "tabletop"."""
    register("tabletop", TabletopConfig, Tabletop)
