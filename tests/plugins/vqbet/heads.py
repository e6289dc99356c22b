"""Heads whose autoencoder has had its first stage of training, and rests."""

from collections.abc import Iterable

import torch

from core import ActionSpec, Batch, Context, ContextSpec, PolicyHead
from plugins.policies.vqbet.head import VQBeTHead
from plugins.policies.vqbet.head_config import VQBeTHeadConfig
from tests.one_batch import train

SMALL = VQBeTHeadConfig(hidden_size=32, code_width=16, offset_weight=10.0)
ACTION = ActionSpec(window=3, horizon=4, dim=5, binary=(1, 3))


def make(
    config: VQBeTHeadConfig = SMALL, action: ActionSpec = ACTION, readouts: int = 2
) -> VQBeTHead:
    """Build a head that reads tokens of width 6."""
    torch.manual_seed(0)
    return VQBeTHead(config, context=ContextSpec(6, readouts), action=action).eval()


def train_autoencoder(
    head: PolicyHead, context: Context, batches: Iterable[Batch], learning_rate: float = 3e-3
) -> None:
    """Train a head's autoencoder alone, and let it rest then."""
    autoencoder = head.get_submodule("autoencoder")
    head.requires_grad_(False)
    autoencoder.requires_grad_(True)
    train(head, context, batches, learning_rate)
    head.requires_grad_(True)
    autoencoder.requires_grad_(False)
