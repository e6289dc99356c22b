"""What training takes from a checkpoint, also where the recipe or the data have changed since.

docs/training.md says what becomes of each piece of a run's state in a continuation with changes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from core.contracts.batch import State
from core.errors import CheckpointError
from core.policy.policy import Policy
from core.recipe.recipe import Recipe
from core.training.averages import WeightAverages
from core.training.inference_state import changed_data
from core.training.master_weights import MASTER
from core.training.run_folder import Start
from core.weights.checkpoint import load_carried, load_checkpoint


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
    start: Start,
    policy: Policy,
    optimizer: Optimizer,
    averages: WeightAverages | None,
    recipe: Recipe,
) -> None:
    """Load the weights, the optimiser's state and the averages of the checkpoint, if there is one.

    If another optimiser was chosen, its state begins anew; if averages were asked for, they begin
    as the weights. Raises CheckpointError if the weights do not fit.
    """
    if start.checkpoint is None:
        return
    former_ema, _ = start.changes.get("train.ema", (recipe.train.ema, None))
    advice = "start a new run with --output, whose parts may begin with these weights (pretrained)"
    former_averages = (averages or WeightAverages(policy, former_ema)) if former_ema else None
    load_checkpoint(
        start.checkpoint,
        policy,
        None if "optimizer.name" in start.changes else optimizer,
        policy.frozen_weights,
        former_averages.by_name() if former_averages else {},
        advice if start.changes else None,
    )
    if "train.precision" in start.changes:
        _drop_master_weights(optimizer, recipe)
    if averages is not None and not former_ema:
        averages.restart()


def carried_state(start: Start, initial: State, data: Mapping[str, Any]) -> State:
    """Return the policy head's state (R ...) with which the rows of the next step begin.

    A run that resumes goes on. If other episodes are in the rows than before, because the order of
    the data has changed, every row begins with the initial state.

    initial: the head's initial state (R ...).
    """
    orders = ("train.batch_size", "train.seed", "data.")
    is_another = any(key.startswith(orders) for key in start.changes)
    if start.checkpoint is None or is_another or changed_data(start.former_data, data):
        return initial
    return load_carried(start.checkpoint, initial)


@torch.no_grad()
def _drop_master_weights(optimizer: Optimizer, recipe: Recipe) -> None:
    """Make the weights what their float32 copies are, if the optimiser keeps copies no longer."""
    if recipe.train.precision == "bf16-true":
        return
    for weight, state in optimizer.state.items():
        if MASTER in state:
            weight.copy_(state.pop(MASTER))
