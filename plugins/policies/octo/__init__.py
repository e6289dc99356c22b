"""What only Octo (Octo Model Team 2024) has: its image tokens and its readout tokens.

vision.py         images -> patches behind a small convolutional stem
action_tokens.py  words, then each frame's images, words and readout tokens, with their positions

The other parts are built-in: the backbone "transformer" and the policy head "diffusion".
"""

from core import Register, hookimpl
from plugins.policies.octo.action_tokens import OctoTokens, OctoTokensConfig
from plugins.policies.octo.vision import OctoVision, OctoVisionConfig


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "octo_vision"."""
    register("octo_vision", OctoVisionConfig, OctoVision)


@hookimpl
def register_action_tokens(register: Register) -> None:
    """Register "octo"."""
    register("octo", OctoTokensConfig, OctoTokens)
