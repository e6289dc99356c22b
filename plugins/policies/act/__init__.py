"""ACT (Zhao et al. 2023) as four parts; the fifth is the text encoder "none".

vision.py         images -> feature maps of a ResNet
action_tokens.py  a latent token and a token of the proprioception before the images' tokens
cvae.py           the latent of a chunk of target actions, in training
backbone.py       the transformer encoder
head.py           the transformer decoder: queries of a chunk attend to all tokens of their frame
layers.py         the layers of both transformers
names.py          the names of all weights in LeRobot's files, and settings
"""

from core import Register, hookimpl
from plugins.policies.act.action_tokens import ACTTokens, ACTTokensConfig
from plugins.policies.act.backbone import ACTBackbone, ACTBackboneConfig
from plugins.policies.act.head import ACTHead, ACTHeadConfig
from plugins.policies.act.vision import ACTVision, ACTVisionConfig


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "act_vision"."""
    register("act_vision", ACTVisionConfig, ACTVision)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register "act"."""
    register("act", ACTBackboneConfig, ACTBackbone)


@hookimpl
def register_action_tokens(register: Register) -> None:
    """Register "act"."""
    register("act", ACTTokensConfig, ACTTokens)


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "act"."""
    register("act", ACTHeadConfig, ACTHead)
