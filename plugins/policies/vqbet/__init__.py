"""VQ-BeT (Lee et al. 2024): backbone, action tokens and policy head, each usable by itself.

backbone.py       minGPT
action_tokens.py  a window as one sequence, with queries for present and future chunks
head.py           codes of chunks, drawn from logits, and offsets from what they stand for
chunks.py         the target chunks of a batch's readouts
autoencoder.py    chunks -> codes -> chunks, which trains first
codebooks.py      vectors -> the nearest codes, book after book
names.py          the names of all weights in LeRobot's files

The vision encoder of VQ-BeT is "resnet_keypoints", and its text encoder is "none".
"""

from core import Register, hookimpl
from plugins.policies.vqbet.action_tokens import VQBeTTokens, VQBeTTokensConfig
from plugins.policies.vqbet.backbone import MinGPT, MinGPTConfig
from plugins.policies.vqbet.head import VQBeTHead
from plugins.policies.vqbet.head_config import VQBeTHeadConfig


@hookimpl
def register_backbones(register: Register) -> None:
    """Register "mingpt"."""
    register("mingpt", MinGPTConfig, MinGPT)


@hookimpl
def register_action_tokens(register: Register) -> None:
    """Register "vqbet"."""
    register("vqbet", VQBeTTokensConfig, VQBeTTokens)


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "vqbet"."""
    register("vqbet", VQBeTHeadConfig, VQBeTHead)
