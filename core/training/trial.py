"""Tries a policy before the first step, so that what would fail later fails at once.

Training calls only the losses of the heads. Without the trial, actions of a wrong shape would show
in the first validation, and a fault of `act` after the last step.
"""

from dataclasses import replace

import numpy as np
import torch
from lightning_fabric import Fabric

from core.contracts.batch import Batch, PastActions
from core.contracts.generator import VALIDATION, Generator
from core.errors import PolicyError
from core.loading.buffers import BatchBuffer
from core.loading.instructions import TokensOf
from core.loading.training_data import TrainingData
from core.policy.policy import Policy
from core.training.unreached import search_for_gradients, unreached_weights


def try_policy(fabric: Fabric, policy: Policy, data: TrainingData, tokens: TokensOf) -> list[str]:
    """Compute losses, predict and act, with the instruction that has most tokens and noise.

    A part that refuses such a sequence then does so before training, and not when its batch comes.
    The policy is in evaluation mode meanwhile, so no statistics change. It comes to the device and
    the precision that Fabric will give it. If a process finds weights that no loss reaches, all
    processes will search for such weights in each step, so this comes before Fabric's setup.

    Returns the names of the trainable weights that no loss reaches.

    tokens: {instruction: its token ids} of all instructions.

    Raises PolicyError if a part breaks its contract, or if an action is not finite, and whatever a
    part raises, for example a ConfigError for a sequence that is too long.
    """
    policy.to(fabric.device)
    fabric.strategy.precision.convert_module(policy)
    batch = longest_batch(data, tokens).to(fabric.device)
    policy.eval()
    head, boundary = policy.policy_head, policy.boundary
    generator = Generator.shared((VALIDATION, 0, fabric.global_rank), fabric.device)
    with fabric.autocast():
        unreached = unreached_weights(policy, policy(batch, generator).losses["total"])
    with fabric.autocast(), torch.no_grad():
        context = policy.context(batch, generator)
        predicted = boundary.predict(head, context, generator)
        boundary.validation_error(head, context, batch, generator)
        state = policy.initial_state(torch.zeros(1, dtype=torch.int64))
        actions, _ = policy.act(_first_frame(batch), state)
    policy.train()
    for method, values in (("forward", predicted), ("act", actions)):
        if not values.isfinite().all():
            raise PolicyError(
                f"{boundary.name('policy_head')}: {method} returned NaN or infinity for random "
                "pixels, before the first step; mend the plugin, or look at the weights that it "
                "starts from"
            )
    # a stage in which parts rest leaves weights without gradients, too
    search_for_gradients(fabric, needed=bool(unreached or data.recipe.train.stages))
    return unreached


def _first_frame(batch: Batch) -> Batch:
    """Return the first frame of each window, as a policy sees it while it acts (T = 1)."""
    past = batch.past
    return replace(
        batch,
        images={name: x[:, :1] for name, x in batch.images.items()},
        features={name: x[:, :1] for name, x in batch.features.items()},
        proprio=None if batch.proprio is None else batch.proprio[:, :1],
        past=past and PastActions(past.actions[:, :1], past.known[:, :1]),
        actions=None,
        action_mask=None,
    )


def longest_batch(data: TrainingData, tokens: TokensOf) -> Batch:
    """Return one window (B = 1) with the instruction that has most tokens.

    Its pixels and its features of real numbers are random, and always the same, because a part may
    divide by their standard deviation. All other numbers are zeros.
    """
    buffer = BatchBuffer(
        1,
        data.info,
        window=data.recipe.data.window,
        horizon=data.recipe.action.horizon,
        lacking=data.training.lacking,
        pinned=False,
    )
    noise = np.random.default_rng(0)
    for name, array in buffer.frames.items():
        if name in data.info.cameras:
            array[:] = noise.integers(0, 256, array.shape, np.uint8)
        else:
            array[:] = noise.random(array.shape) if array.dtype.kind == "f" else 0
    for array in (buffer.actions, buffer.past_actions, buffer.proprio, buffer.embodiment):
        array.fill(0)
    for mask in (
        buffer.action_mask,
        buffer.past_known,
        buffer.begins,
        *buffer.present.values(),
    ):
        mask.fill(True)
    instruction = max(tokens, key=lambda text: len(tokens[text]))
    return buffer.batch([instruction], [np.asarray(tokens[instruction], np.int64)], [""])
