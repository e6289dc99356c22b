"""RLDS (https://github.com/google-research/rlds), which Open X-Embodiment uses.

Joinery reads it without TensorFlow.
"""

from core import Register, hookimpl
from plugins.datasets.rlds.source import Rlds, RldsConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "rlds"."""
    register("rlds", RldsConfig, Rlds)
