"""Checkpoints: one folder for each saved step; a folder is complete or does not exist.

RUN/checkpoints/step_00000200/model.safetensors, optimizer.safetensors, state.json

model.safetensors holds the weights for acting. If training keeps moving averages of the weights,
these are the averages, and training.safetensors holds the weights with which training goes on. If
the policy head's state is carried from step to step, carried.safetensors holds that state.

state.json holds the step, the validation error, and what acting needs in addition to the weights
(see core/training/inference_state.py).

A folder is written under a hidden name and renamed, so that it is never half written. It holds
safetensors and JSON only, so loading executes no code from it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.errors import CheckpointError
from core.system.files import remove, written_aside
from core.system.links import check_run
from core.system.strict import one_line, parse_json
from core.weights.pretrained import NO_FROZEN_WEIGHTS, FrozenWeights

NO_AVERAGES: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run, saved after one of its steps.

    state: the contents of state.json, which are the step, its validation error, and what acting
        needs in addition to the weights.
    """

    folder: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Number of optimiser steps done when the checkpoint was saved."""
        return int(self.state["step"])

    @property
    def error(self) -> float:
        """Validation error after the saved step; infinite if that step had no validation."""
        error = self.state.get("validation_error")
        return math.inf if error is None else float(error)

    @property
    def comparable_from(self) -> int:
        """The step after which errors of the run may be compared with this one.

        It is 0 unless the run went on with other data or another policy after some step.
        """
        return int(self.state.get("comparable_from", 0))


def save_checkpoint(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    keep_last: int,
    frozen: FrozenWeights = NO_FROZEN_WEIGHTS,
    averages: Mapping[str, Tensor] = NO_AVERAGES,
    carried: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all, then remove old checkpoints.

    The newest `keep_last` checkpoints and the best checkpoint are kept. If the run went on with
    changes after which errors cannot be compared, the best of before stays, too.
    frozen: weights that are not saved; the checkpoint holds the checksum of these weights instead.
    averages: {name of a weight: its moving average, for acting}; empty if there are no averages.
    carried: state of the policy head (R ...), a row for each row of an optimiser step; None if
        every window begins afresh.
    Raises CheckpointError if writing fails, and keeps all earlier checkpoints in that case; also
    raises it if an old checkpoint cannot be removed, or if the optimiser's state is not all tensors
    of parameters.
    """
    folder = checkpoint_folder(run, state["step"])
    files = checkpoint_tensors(model, optimizer, frozen, averages, carried)
    state_text = json.dumps({**state, "left_out": frozen.checksum}, indent=2, allow_nan=False)
    try:
        for leftover in folder.parent.glob(".step_*"):  # hidden folders of killed processes
            remove(leftover)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(folder, durable=True) as aside:
            aside.mkdir()
            for name, tensors in files.items():
                save_file(tensors, aside / name)
            (aside / "state.json").write_text(state_text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: cannot save the checkpoint: {error}; earlier checkpoints are intact: "
            "make room, then continue with --resume"
        ) from None
    try:
        _prune(run, keep_last)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: saved, but an earlier checkpoint cannot be removed: {error}; allow that, "
            "then continue with --resume"
        ) from None
    return folder


def checkpoint_tensors(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    frozen: FrozenWeights = NO_FROZEN_WEIGHTS,
    averages: Mapping[str, Tensor] = NO_AVERAGES,
    carried: Mapping[str, Tensor] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Return {file: {name: tensor}} of a checkpoint; the arguments are those of `save_checkpoint`.

    Raises CheckpointError if the optimiser's state is not all tensors of parameters.
    """
    weights = {
        name: tensor for name, tensor in model.state_dict().items() if name not in frozen.names
    }
    files = {
        "model.safetensors": _without_shared_memory({**weights, **averages}),
        "optimizer.safetensors": _optimizer_state(model, optimizer),
    }
    if averages:
        training = {name: weights[name] for name in averages}
        files["training.safetensors"] = _without_shared_memory(training)
    if carried is not None:
        files["carried.safetensors"] = dict(carried)
    return files


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint that is saved after `step` optimiser steps."""
    return run / "checkpoints" / f"step_{step:08d}"


def checkpoints(run: Path) -> list[Checkpoint]:
    """Return all checkpoints of a run, oldest first.

    Raises CheckpointError for a damaged one, and DataError if a link in the run leads out of it.
    """
    check_run(run)
    result = []
    for folder in sorted((run / "checkpoints").glob("step_*")):
        path = folder / "state.json"
        try:
            state = parse_json(path.read_text(encoding="utf-8"))
            checkpoint = Checkpoint(folder, state)
            # what every checkpoint has, in the types that it has
            float(checkpoint.error), checkpoint.comparable_from
            if not isinstance(checkpoint.step, int):
                raise ValueError("its step is no number")
            result.append(checkpoint)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: cannot read it ({one_line(error)}): remove this checkpoint"
            ) from None
    return result


def choose_checkpoint(run: Path, which: Literal["last", "best"] | int) -> Checkpoint:
    """Return a checkpoint of a run: the last, that with the lowest validation error, or by step.

    which: "last", "best", or the number of optimiser steps after which it was saved.

    Raises CheckpointError if the run has no such checkpoint; the error lists those that it has.
    Raises DataError if a link in the run's folder leads out of it.
    """
    if not (available := checkpoints(run)):
        raise CheckpointError(
            f"{run}: holds no checkpoint; name the folder of a run, runs/kosmos_lstm for example"
        )
    if which == "last":
        return available[-1]
    if which == "best":
        if best := best_of(available):
            return best
        raise CheckpointError(
            f"{run}: none of its checkpoints has a finite validation error, so none is the best; "
            "choose 'last'"
        )
    steps = {checkpoint.step: checkpoint for checkpoint in available}
    if which not in steps:
        raise CheckpointError(
            f"checkpoint: {run} has none of step {which!r}; choose 'last', 'best', or one of "
            f"the steps {', '.join(map(str, steps))}"
        )
    return steps[which]


def load_checkpoint(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    frozen: FrozenWeights = NO_FROZEN_WEIGHTS,
    averages: Mapping[str, Tensor] = NO_AVERAGES,
    advice: str | None = None,
) -> None:
    """Load a checkpoint's weights and optimiser state, to go on training.

    optimizer: None, if its state is to begin anew.
    averages: {name of a weight: tensor for its moving average}, which is filled in place; empty if
        training keeps no averages.
    advice: what to do if the weights do not fit, for the message; None if the recipe has not
        changed. If it has, other weights may be trained than before: an average that the
        checkpoint lacks begins as its weight.

    Raises CheckpointError if a key does not fit, as `load_weights` does.
    """
    load_weights(checkpoint, model, frozen, advice)
    if averages:
        _load_averages(checkpoint, model, averages, may_differ=advice is not None)
    if optimizer is None:
        return
    tensors = _read(checkpoint.folder / "optimizer.safetensors")
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(
                f"{checkpoint.folder}: the optimiser has state for '{name}', which the policy lacks"
            )
        # moments are moved to the device of their parameter; step counts, which are scalars, stay
        # on the CPU
        device = parameters[name].device if tensor.ndim else tensor.device
        optimizer.state[parameters[name]][entry] = tensor.to(device)


def _load_averages(
    checkpoint: Checkpoint, model: nn.Module, averages: Mapping[str, Tensor], *, may_differ: bool
) -> None:
    """Fill the averages, then replace them in the model by the weights that training goes on with.

    model: a model that holds the checkpoint's averages, which may be rounded there.
    may_differ: whether other weights may have averages than in the checkpoint. Those that it lacks
        begin as the weights.
    """
    averaged = _read(checkpoint.folder / "model.safetensors")
    weights = _read(checkpoint.folder / "training.safetensors")
    if weights.keys() != averages.keys() and not may_differ:
        raise CheckpointError(
            f"{checkpoint.folder}/training.safetensors: other weights train there than in the "
            "recipe; continue with the recipe that the run was started with"
        )
    for name, average in averages.items():
        average.copy_(averaged[name])  # the weight itself, if it had no average
    model.load_state_dict(weights, strict=False)


def load_training_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Replace averages in a model by the weights that training went on with, if both were saved.

    model: a model that holds the checkpoint's weights already.
    """
    path = checkpoint.folder / "training.safetensors"
    if path.exists():
        model.load_state_dict(_read(path), strict=False)


def load_carried(checkpoint: Checkpoint, initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Load the carried state of the policy head (R ...).

    initial: the head's initial state (R ...); the carried state comes to its device.

    Raises CheckpointError if its names or shapes are not those of the initial state.
    """
    path = checkpoint.folder / "carried.safetensors"
    carried = _read(path)
    if {n: x.shape for n, x in carried.items()} != {n: x.shape for n, x in initial.items()}:
        raise CheckpointError(
            f"{path}: does not fit the policy head's state; start a new run with --output"
        )
    return {name: x.to(initial[name].device) for name, x in carried.items()}


def load_weights(
    checkpoint: Checkpoint,
    model: nn.Module,
    frozen: FrozenWeights = NO_FROZEN_WEIGHTS,
    advice: str | None = None,
) -> None:
    """Load a checkpoint's weights; raises a CheckpointError that lists the keys that do not fit.

    frozen: weights that the model holds already and that the checkpoint does not hold. Raises
        CheckpointError unless their checksum equals the checksum in the checkpoint.
    advice: what to do if keys do not fit, for the message.
    """
    weights = _read(checkpoint.folder / "model.safetensors")
    try:
        keys = model.load_state_dict(weights, strict=False)
        missing = [name for name in keys.missing_keys if name not in frozen.names]
        problems = [f"it lacks '{name}'" for name in missing]
        problems += [f"the policy lacks '{name}'" for name in keys.unexpected_keys]
    except RuntimeError as error:  # the shape of a tensor differs
        problems = [line.strip() for line in str(error).splitlines()[1:]]
    if problems:
        raise CheckpointError(
            f"{checkpoint.folder}: the weights do not fit the recipe's parts: "
            f"{'; '.join([*problems, *([advice] if advice else [])])}"
        )
    if checkpoint.state.get("left_out", 0) != frozen.checksum:
        parts = ", ".join(sorted({name.partition(".")[0] for name in frozen.names}))
        raise CheckpointError(
            f"{checkpoint.folder}: the weights that `pretrained` names for {parts} are no longer "
            "those it was trained on; restore that source, or "
            f"{advice or 'start a new run with --output'}"
        )


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return {name of a parameter, slash, name of an entry: tensor} of the optimiser's state.

    Raises CheckpointError for an entry that is no tensor: such an optimiser could not be resumed.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                raise CheckpointError(
                    f"optimiser {type(optimizer).__name__}: its state '{entry}' of '{name}' is a "
                    f"{type(value).__name__}, and checkpoints hold tensors; keep it as a tensor"
                )
            tensors[f"{name}/{entry}"] = value.detach().contiguous()
    return tensors


def _without_shared_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as contiguous tensors that share no memory with each other.

    Tied weights share memory, and safetensors refuses that.
    """
    addresses: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        if tensor.data_ptr() in addresses:
            tensor = tensor.clone()
        addresses.add(tensor.data_ptr())
        separate[name] = tensor
    return separate


def best_of(available: Sequence[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint with the lowest error, of equal ones the newest; None if none has one.

    Only those count whose errors may be compared with that of the newest checkpoint.

    available: checkpoints of a run, oldest first.
    """
    comparable = [c for c in available if c.comparable_from == available[-1].comparable_from]
    best = min(reversed(comparable), key=lambda checkpoint: checkpoint.error, default=None)
    return best if best and math.isfinite(best.error) else None


def _prune(run: Path, keep_last: int) -> None:
    """Remove all checkpoints but the newest `keep_last` and the best of those that compare.

    Each folder that is removed gets a hidden name first. If the process is killed while it
    removes a folder, the rest of that folder is therefore not taken for a checkpoint.
    """
    existing = checkpoints(run)
    kept = {checkpoint.folder for checkpoint in existing[-keep_last:]}
    for _, comparable in groupby(existing, lambda checkpoint: checkpoint.comparable_from):
        if best := best_of(list(comparable)):
            kept.add(best.folder)
    for checkpoint in existing:
        if checkpoint.folder not in kept:
            hidden_name = f".{checkpoint.folder.name}.deleting"
            remove(checkpoint.folder.rename(checkpoint.folder.with_name(hidden_name)))


def _read(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors; raises CheckpointError if the file is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot read it ({error}): remove this checkpoint to use an earlier one"
        ) from None
