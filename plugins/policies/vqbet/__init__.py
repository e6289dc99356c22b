"""VQ-BeT (Lee et al. 2024): the policy head "vqbet", for any backbone.

head.py         codes of chunks, drawn from logits, and offsets from what they stand for
chunks.py       the target chunks of a batch's readouts
autoencoder.py  chunks -> codes -> chunks, which trains first
codebooks.py    vectors -> the nearest codes, book after book
"""

from core import Register, hookimpl
from plugins.policies.vqbet.head import VQBeTHead
from plugins.policies.vqbet.head_config import VQBeTHeadConfig


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "vqbet"."""
    register("vqbet", VQBeTHeadConfig, VQBeTHead)
