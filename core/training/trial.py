"""Runs the longest sequence of a recipe's data through the policy before the first step."""

import numpy as np
import torch
from lightning_fabric import Fabric

from core.contracts.batch import Batch
from core.contracts.generator import VALIDATION, Generator
from core.loading.buffers import BatchBuffer
from core.loading.instructions import TokensOf
from core.loading.training_data import TrainingData
from core.policy.policy import Policy


@torch.no_grad()
def try_longest_sequence(
    fabric: Fabric, policy: Policy, data: TrainingData, tokens: TokensOf
) -> None:
    """Compute the losses of one window of zeros with the instruction that has most tokens.

    A part that refuses such a sequence then does so before training, and not when its batch comes.
    The policy is in evaluation mode meanwhile, so no statistics change.

    tokens: {instruction: its token ids} of all instructions.

    Raises whatever a part raises, for example a ConfigError for a sequence that is too long.
    """
    batch = longest_batch(data, tokens).to(fabric.device)
    policy.eval()
    with fabric.autocast():
        policy(batch, Generator.shared((VALIDATION, 0, fabric.global_rank), fabric.device))
    policy.train()


def longest_batch(data: TrainingData, tokens: TokensOf) -> Batch:
    """Return one window of zeros (B = 1) with the instruction that has most tokens."""
    buffer = BatchBuffer(
        1,
        data.info,
        window=data.recipe.data.window,
        horizon=data.recipe.action.horizon,
        lacking=data.training.lacking,
        pinned=False,
    )
    numbers = (buffer.actions, buffer.proprio, buffer.embodiment)
    for array in (*buffer.frames.values(), *numbers):
        array.fill(0)
    for mask in (buffer.action_mask, buffer.begins, *buffer.present.values()):
        mask.fill(True)
    instruction = max(tokens, key=lambda text: len(tokens[text]))
    return buffer.batch([instruction], [np.asarray(tokens[instruction], np.int64)], [""])
