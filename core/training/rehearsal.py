"""Lets the policy predict and act once before the first step, so that faults are found at once.

Training calls only a head's `loss`. Without a rehearsal, actions of a wrong shape would show in the
first validation, and a fault of `act` after the last step.
"""

from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.contracts.batch import Batch
from core.contracts.generator import VALIDATION, Generator
from core.errors import PolicyError
from core.policy.policy import Policy


@torch.no_grad()
def rehearse(fabric: Fabric, policy: Policy, batch: Batch) -> None:
    """Let the policy predict, validate and act on a training batch; nothing is changed by it.

    Raises PolicyError if a part breaks its contract, or if an action is not finite.
    """
    policy.eval()
    head, boundary = policy.policy_head, policy.boundary
    generator = Generator.shared((VALIDATION, 0, fabric.global_rank), fabric.device)
    with fabric.autocast():
        context = policy.context(batch, generator)
        predicted = boundary.predict(head, context, generator)
        boundary.validation_error(head, context, batch, generator)
        seeds = torch.zeros(len(batch.text_ids), dtype=torch.int64)
        actions, _ = policy.act(_first_frame(batch), policy.initial_state(seeds))
    policy.train()
    for method, values in (("forward", predicted), ("act", actions)):
        if not values.isfinite().all():
            raise PolicyError(
                f"{boundary.name('policy_head')}: {method} returned NaN or infinity before the "
                "first step; mend the plugin, or look at the weights that it starts from"
            )


def _first_frame(batch: Batch) -> Batch:
    """Return the first frame of each window, as a policy sees it while it acts (T = 1)."""

    def first(x: Tensor) -> Tensor:
        return x[:, :1]

    return replace(
        batch,
        images={name: first(x) for name, x in batch.images.items()},
        features={name: first(x) for name, x in batch.features.items()},
        proprio=None if batch.proprio is None else first(batch.proprio),
        actions=None,
        action_mask=None,
    )
