"""What training takes from a checkpoint, also where the recipe or the data have changed since.

docs/training.md says what becomes of each piece of a run's state in a continuation with changes.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer

from core.contracts.batch import State
from core.errors import CheckpointError
from core.policy.policy import Policy
from core.recipe.contents import Recipe
from core.recipe.train_section import TrainConfig
from core.training.averages import WeightAverages
from core.training.continuations import Continuation
from core.training.early_stopping import EarlyStopping
from core.training.inference_state import changed_data
from core.training.master_weights import MASTER
from core.training.run_folder import Start
from core.training.skipping import Skipping
from core.weights.checkpoint import Checkpoint, load_carried, load_checkpoint

NEW_RUN = (
    "start a new run with --output that begins with these weights: start.run={run}, and start.anew "
    "names what does not fit"
)


def check_data(start: Start, data: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise CheckpointError if a run that must not change goes on with other data.

    data: what acting needs, as the data give it now.
    """
    changes = changed_data(start.former_data, data)
    if start.checkpoint and changes and not start.with_changes:
        stores = ", ".join(str(config.path) for config in recipe.data.store_configs)
        raise CheckpointError(
            f"{stores}: not the data that {start.checkpoint.folder} was trained on: "
            f"{', '.join(changes)} changed; bring back that data, add --with-changes to go on with "
            "the new, or start a new run with --output"
        )


def restore(
    checkpoint: Checkpoint,
    change: Continuation | None,
    policy: Policy,
    optimizer: Optimizer,
    averages: WeightAverages | None,
    recipe: Recipe,
) -> None:
    """Load the weights, the optimiser's state and the averages of a checkpoint.

    If another optimiser was chosen, its state begins anew; if averages were asked for, they begin
    as the weights.

    change: what changes when training goes on from the checkpoint.

    Raises CheckpointError if the weights do not fit.
    """
    changes = change.changes if change else {}
    former_ema = changes["train.ema"][0] if "train.ema" in changes else recipe.train.ema
    former_averages = (averages or WeightAverages(policy, former_ema)) if former_ema else None
    load_checkpoint(
        checkpoint,
        policy,
        None if "optimizer.name" in changes else optimizer,
        policy.frozen_weights,
        former_averages.by_name() if former_averages else {},
        NEW_RUN.format(run=checkpoint.folder.parents[1]) if change else None,
    )
    if "train.precision" in changes and recipe.train.precision != "bf16-true":
        _drop_master_weights(optimizer)
    if averages is not None and not former_ema:
        averages.restart()


def restore_early_stopping(
    checkpoint: Checkpoint | None, change: Continuation | None, patience: int
) -> EarlyStopping:
    """Return the count of validations with which the run goes on.

    With a change, it begins anew, and keeps the lowest error if that still compares.
    """
    former = checkpoint.state.get("early_stopping") if checkpoint else None
    if former is None or (change and not change.keeps_errors_comparable):
        return EarlyStopping(patience)
    best = math.inf if former["best"] is None else former["best"]
    return EarlyStopping(patience, best, 0 if change else former["since"])


def restore_skipping(
    checkpoint: Checkpoint | None,
    change: Continuation | None,
    fabric: Fabric,
    policy: Policy,
    train: TrainConfig,
) -> Skipping:
    """Return the count of skipped steps with which the run goes on.

    With a change, the count of those in a row begins anew.
    """
    former = checkpoint.state.get("skipped") if checkpoint else None
    if former is None:
        return Skipping(fabric, policy, train)
    in_a_row = 0 if change else former["in_a_row"]
    return Skipping(fabric, policy, train, former["total"], in_a_row)


def carried_state(
    checkpoint: Checkpoint | None, change: Continuation | None, initial: State
) -> State:
    """Return the policy head's state (R ...) with which the rows of the next step begin.

    A run that resumes goes on. If other episodes are in the rows than before, because the order of
    the data has changed, every row begins with the initial state.

    initial: the head's initial state (R ...).
    """
    if checkpoint is None or (change and _reorders(change)):
        return initial
    return load_carried(checkpoint, initial)


def _reorders(change: Continuation) -> bool:
    """Whether the rows of a step hold other episodes than without the change."""
    orders = ("train.batch_size", "train.seed", "data.")
    return bool(change.data_changes) or any(key.startswith(orders) for key in change.changes)


@torch.no_grad()
def _drop_master_weights(optimizer: Optimizer) -> None:
    """Make the weights what their float32 copies are, which are kept no longer."""
    for weight, state in optimizer.state.items():
        if MASTER in state:
            weight.copy_(state.pop(MASTER))
