"""Any environment of Gymnasium that has pictures, named in a recipe; experts for some of them.

https://gymnasium.farama.org, MIT licence.
"""

from core import Register, hookimpl
from plugins.environments.gymnasium.config import GymnasiumConfig
from plugins.environments.gymnasium.environment import Gymnasium


@hookimpl
def register_environments(register: Register) -> None:
    """Register "gymnasium"."""
    register("gymnasium", GymnasiumConfig, Gymnasium)
