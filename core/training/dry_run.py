"""A dry run: everything is set up as for training, a few steps are done, and nothing is written."""

import resource
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import torch
from lightning_fabric import Fabric

from core.loading.loader import Loader
from core.recipe.contents import Recipe
from core.training.carrying import gather
from core.training.compilation import compilation_explained
from core.training.fit import Run, fit
from core.training.library_errors import library_errors_in_one_line
from core.training.reporting import raise_if_weights_broken
from core.training.run_folder import find_start
from core.training.signals import StopSignal
from core.training.train import launch, set_up
from core.training.validation import validate
from core.weights.checkpoint import checkpoint_tensors

# The first step takes longer than the others: it allocates the optimiser's state, and compiles.
STEPS = 3


class StopAfterSteps(StopSignal):
    """Stops training after `STEPS` steps, and notes when each of them began and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def requested(self, fabric: Fabric, ask: bool) -> bool:  # noqa: ARG002
        """Return whether the steps are done, in all processes alike."""
        if fabric.device.type == "cuda":
            torch.cuda.synchronize(fabric.device)
        self.times.append(time.perf_counter())
        return len(self.times) > STEPS


def dry_run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool,
    with_changes: bool,
    moved: Mapping[str, str] | None = None,
) -> None:
    """Set up what training needs, do a few steps and validate one batch; print what they cost.

    The arguments are those of `train`. Nothing is written, neither into `folder` nor by loggers or
    callbacks, which are not started.

    Raises what `train` raises before its first checkpoint.
    """
    start = find_start(recipe, folder, resume=resume, with_changes=with_changes, moved=moved)
    fabric = launch(recipe)
    with library_errors_in_one_line(), StopAfterSteps() as stop:
        run = set_up(fabric, recipe, folder, start, stop, writes=False)
        # a validation within the steps would count as their time
        held_out, run.validation = run.validation, None
        try:
            with compilation_explained():
                done = fit(run, start.step)
                if len(stop.times) <= done - start.step:  # the recipe has fewer steps
                    stop.requested(fabric, ask=False)
                if held_out is not None:
                    _validate_one_batch(run, held_out)
        finally:
            run.close("aborted")
    raise_if_weights_broken(run.policy, done, None)
    if done == start.step:
        lines = [f"dry run: nothing is left to do: the run is complete at step {done}"]
    else:
        lines = [
            f"dry run: {done - start.step} steps are done, and nothing is written",
            _memory(fabric),
            _time(run, stop.times),
            _disk(run),
        ]
    run.console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _validate_one_batch(run: Run, held_out: Loader) -> None:
    fabric, carries = run.fabric, run.recipe.data.sampling == "episodes"
    with closing(held_out.once(fabric.global_rank, fabric.world_size)) as batches:
        one = islice(batches, 1)
        validate(fabric, run.policy, one, run.task_of, run.action_dim, carries)


def _memory(fabric: Fabric) -> str:
    if fabric.device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(fabric.device)
        reserved = torch.cuda.max_memory_reserved(fabric.device)
        return (
            f"memory: at most {_amount(allocated)} on the GPU, {_amount(reserved)} with what "
            "PyTorch keeps in reserve"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"memory: at most {_amount(peak if sys.platform == 'darwin' else peak * 1024)}"


def _time(run: Run, times: list[float]) -> str:
    """Say how long a step and all steps take.

    times: when training began, and when each of its steps ended.
    """
    first, *others = [after - before for before, after in pairwise(times)]
    seconds = sum(others) / len(others) if others else first
    steps = run.recipe.train.steps
    return (
        f"time: {seconds:.3g} s per step, the first {first:.3g} s; {steps} steps take about "
        f"{_duration(seconds * steps)}, without validation, checkpoints and evaluation"
    )


def _disk(run: Run) -> str:
    files = checkpoint_tensors(
        run.policy,
        run.optimizer.optimizer,
        run.policy.frozen_weights,
        run.averages.by_name() if run.averages else {},
        gather(run.fabric, run.carried),
    )
    size = sum(x.numel() * x.element_size() for tensors in files.values() for x in tensors.values())
    kept = run.recipe.train.keep_last + 1
    return (
        f"disk: {_amount(size)} for each checkpoint, and up to {kept} are kept: the newest and "
        "the best"
    )


def _amount(size: int) -> str:
    """Write a number of bytes in GB or MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    """Write a duration in two units: "3 h 20 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
