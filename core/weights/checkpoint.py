"""Checkpoints: one folder per step, written beside and renamed into place; safetensors and JSON:
loading runs no code.

RUN/checkpoints/step_00000200/model.safetensors, optimizer.safetensors, state.json
"""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.errors import CheckpointError
from core.weights.pretrained import NO_FROZEN_WEIGHTS, FrozenWeights


@dataclass(frozen=True)
class Checkpoint:
    """A saved step. `state` is plain data: step, validation error, and what inference needs beside
    the weights.
    """

    folder: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps done when it was saved."""
        return int(self.state["step"])

    @property
    def error(self) -> float:
        """Validation error when it was saved; infinite where none was measured."""
        error = self.state.get("validation_error")
        return math.inf if error is None else float(error)


def save_checkpoint(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    keep_last: int,
    published: FrozenWeights = NO_FROZEN_WEIGHTS,
) -> Path:
    """Write a checkpoint atomically, then drop all but the newest `keep_last` and the best.

    published: weights that are not written, only their checksum.
    Raises CheckpointError when the disk refuses; what was saved before stays as it was.
    """
    folder = checkpoint_folder(run, state["step"])
    temporary = folder.with_name(f".{folder.name}.writing")
    try:
        for leftover in folder.parent.glob(".step_*"):  # of a process that was killed
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        kept = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if name not in published.names
        }
        save_file(_contiguous(kept), temporary / "model.safetensors")
        save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
        described = json.dumps({**state, "left_out": published.checksum}, indent=2, allow_nan=False)
        (temporary / "state.json").write_text(described, encoding="utf-8")
        _publish(temporary, folder)
        _prune(run, keep_last)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{folder}: cannot save the checkpoint: {error}; earlier checkpoints are intact: "
            "make room, then continue with --resume"
        ) from None
    return folder


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimiser steps lies."""
    return run / "checkpoints" / f"step_{step:08d}"


def checkpoints(run: Path) -> list[Checkpoint]:
    """All complete checkpoints of a run, oldest first."""
    folders = sorted((run / "checkpoints").glob("step_*"))
    return [Checkpoint(folder, _read_state(folder)) for folder in folders]


def load_checkpoint(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    published: FrozenWeights = NO_FROZEN_WEIGHTS,
) -> None:
    """Put a checkpoint's weights and optimiser state in place, strictly."""
    load_weights(checkpoint, model, published)
    tensors = _read(checkpoint.folder / "optimizer.safetensors")
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(
                f"{checkpoint.folder}: the optimiser has state for '{name}', which the policy lacks"
            )
        where = parameters[name].device if tensor.ndim else tensor.device
        optimizer.state[parameters[name]][entry] = tensor.to(where)


def load_weights(
    checkpoint: Checkpoint, model: nn.Module, published: FrozenWeights = NO_FROZEN_WEIGHTS
) -> None:
    """Put a checkpoint's weights in place, strictly: raises CheckpointError with every key that
    does not fit.

    published: weights that the model has already and the checkpoint lacks; they must be those it
    was saved with.
    """
    weights = _read(checkpoint.folder / "model.safetensors")
    try:
        found = model.load_state_dict(weights, strict=False)
        lacking = [
            f"it lacks '{name}'" for name in found.missing_keys if name not in published.names
        ]
        problems = lacking + [f"the policy lacks '{name}'" for name in found.unexpected_keys]
    except RuntimeError as error:  # shapes
        problems = [line.strip() for line in str(error).splitlines()[1:]]
    if problems:
        raise CheckpointError(
            f"{checkpoint.folder}: the weights do not fit the recipe's parts: {'; '.join(problems)}"
        )
    if checkpoint.state.get("left_out", 0) != published.checksum:
        raise CheckpointError(
            f"{checkpoint.folder}: the weights that `pretrained` names are no longer those it was trained on; "
            "bring back that source"
        )


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Own, contiguous memory for each tensor: safetensors refuses two names for one storage (tied
    weights).
    """
    seen: set[int] = set()
    owned = {}
    for name, tensor in tensors.items():
        owned[name] = tensor.detach().contiguous()
        if owned[name].data_ptr() in seen:
            owned[name] = owned[name].clone()
        seen.add(owned[name].data_ptr())
    return owned


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{entry}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def _publish(temporary: Path, folder: Path) -> None:
    """Make the folder durable and visible in one step: contents first, then the name."""
    for path in (*temporary.iterdir(), temporary):
        _sync(path)
    os.rename(temporary, folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(run: Path, keep_last: int) -> None:
    saved = checkpoints(run)
    best = min(saved, key=lambda checkpoint: checkpoint.error)
    for checkpoint in saved[:-keep_last]:
        if checkpoint.folder != best.folder or math.isinf(best.error):
            shutil.rmtree(
                checkpoint.folder.rename(
                    checkpoint.folder.with_name(f".{checkpoint.folder.name}.deleting")
                )
            )


def _read_state(folder: Path) -> Any:
    try:
        return json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'state.json'}: cannot read it ({error}): remove this checkpoint"
        ) from None


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot read it ({error}): remove this checkpoint to use an earlier"
        ) from None
