"""RLDS (https://github.com/google-research/rlds): episodes as Open X-Embodiment has them, without
TensorFlow.
"""

from core import Register, hookimpl
from plugins.datasets.rlds.source import Rlds, RldsConfig


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "rlds"."""
    register("rlds", RldsConfig, Rlds)
