"""The folder of a run: who works in it, and with which recipe its training begins or goes on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from core.errors import CheckpointError, ConfigError
from core.policy.initial_weights import KEPT, keep_frozen_weights
from core.recipe.contents import MONITOR_KEYS, Recipe
from core.recipe.differences import differences
from core.recipe.packages import write_origins
from core.recipe.places import find_places, keep_files, use_copies
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.system.files import remove_leftovers, written_aside
from core.system.links import check_run
from core.system.locks import locked
from core.training.continuations import (
    Continuation,
    continued,
    read_continuations,
    write_continuations,
)
from core.training.inference_state import changed_data
from core.weights.checkpoint import Checkpoint, checkpoints


@dataclass(frozen=True)
class Start:
    """Where training begins, in a folder that is checked and not yet changed.

    recipe: the recipe, with the run's own copies of the files from which its parts are built.
    checkpoint: the one from which the run goes on; None: training begins with the first step.
    with_changes: whether the recipe and the data may differ from those of the run so far.
    changes: {key of the recipe: (its former value, its new value)}, which affect the weights.
    continuations: the earlier changes of the run.
    moved: {former place of a file or folder: its place now}, of those that the recipes of runs name
        with whose weights the policy begins.
    """

    recipe: Recipe
    checkpoint: Checkpoint | None
    with_changes: bool
    changes: Mapping[str, tuple[Any, Any]]
    continuations: tuple[Continuation, ...]
    moved: Mapping[str, str] | None = None

    @property
    def step(self) -> int:
        """Number of steps that were done before."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def former_data(self) -> Mapping[str, Any]:
        """What acting needs, as the data gave it so far; without a checkpoint, nothing is known."""
        if self.continuations and self.continuations[-1].step >= self.step:
            return self.continuations[-1].data
        return self.checkpoint.state if self.checkpoint else {}

    def continuations_with(self, data: Mapping[str, Any]) -> list[Continuation]:
        """Return all continuations of the run, with what changes now.

        data: what acting needs, as the data give it now.
        """
        if self.checkpoint is None:
            return []
        data_changes = changed_data(self.former_data, data)
        return continued(
            self.continuations, Continuation(self.step, self.changes, data_changes, data)
        )


def claim(folder: Path, *, resume: bool) -> AbstractContextManager[None]:
    """Keep other runs out of a folder inside the `with` block; the first process does it for all.

    Raises LockedError if another run is at work there, CheckpointError if `resume` is true and
    there is no run, and DataError if a link in the folder leads out of it.
    """
    check_run(folder)
    if resume:
        _require_run(folder)  # before there is a folder for the lock
    is_first = getattr(rank_zero_only, "rank", 0) == 0  # as Fabric finds out, before it starts any
    return locked(folder) if is_first else nullcontext()


def _require_run(folder: Path) -> None:
    if not (folder / "recipe.toml").exists():
        raise CheckpointError(
            f"{folder}: no run to resume: leave out --resume, or name its folder with --output"
        )


def find_start(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool,
    with_changes: bool,
    moved: Mapping[str, str] | None = None,
) -> Start:
    """Return where training begins in a folder.

    moved: {former place of a file or folder: its place now}, for recipes of runs.

    Raises CheckpointError if `resume` is false and the folder holds a run, or if `resume` is true
    and it holds none. Raises ConfigError, with all differences, if `with_changes` is false and the
    run was started with another recipe.
    """
    newest = next(reversed(checkpoints(folder)), None)
    if not resume:
        if newest:
            raise CheckpointError(
                f"{folder}: holds a run already, at step {newest.step}: continue it with --resume, "
                "or name another folder with --output"
            )
        return Start(recipe, None, with_changes=False, changes={}, continuations=(), moved=moved)
    _require_run(folder)
    # load the file as a recipe: a key that did not exist when the run started then gets its default
    former = load_recipe(folder / "recipe.toml", [], load_plugins(), ignored=MONITOR_KEYS)
    former = find_places(former, folder, moved or {})
    own = use_copies(recipe, folder)
    changes = differences(use_copies(former, folder), own)
    if changes and not with_changes:
        lines = [
            f"{key}: the run in {folder} was started with {former!r}, the recipe now says {new!r}"
            for key, (former, new) in changes.items()
        ]
        raise ConfigError([*lines, "restore these keys, or go on with the new: add --with-changes"])
    if newest and newest.step > recipe.train.steps:
        raise ConfigError(
            f"train.steps: the run in {folder} has done {newest.step} steps, and the recipe asks "
            f"for {recipe.train.steps}; ask for more"
        )
    return Start(own, newest, with_changes, changes, tuple(read_continuations(folder)), moved)


def record_start(
    fabric: Fabric,
    recipe: Recipe,
    folder: Path,
    start: Start,
    continuations: Sequence[Continuation],
    frozen: Mapping[str, Tensor],
) -> None:
    """Write recipe.toml and packages.json, and record what has changed in the run so far.

    recipe: the recipe as it was given, with its own files.
    frozen: the weights of which the run keeps a copy, as `weights_to_keep` returns them.
    """
    fabric.barrier()  # until all processes have read the former recipe
    if fabric.is_global_zero:
        write_continuations(folder, continuations)
        path = folder / "recipe.toml"
        remove_leftovers(path)
        with written_aside(path) as aside:
            aside.write_text(recipe.as_toml(), encoding="utf-8")
        write_origins(folder, recipe)
        keep_files(recipe, start.recipe, folder)
        keep_frozen_weights(frozen, folder / KEPT, resumed=start.checkpoint is not None)


def describe_change(change: Continuation) -> Iterator[str]:
    """Yield lines about what changes where a run goes on."""
    yield change.describe()
    if not change.keeps_errors_comparable:
        yield (
            f"validation errors after step {change.step} are not compared with earlier ones: "
            "the best checkpoint is chosen among those that follow"
        )
