"""The training loop: one forward, one backward, one optimiser step for all parts. `fit` is the
whole of it.
"""

from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.utilities.seed import seed_everything
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from rich.console import Console

from core.contracts.generator import TRAINING, Generator
from core.loading.loader import Loader
from core.policy.policy import Policy
from core.recipe.recipe import Recipe
from core.recipe.sections import TrainConfig
from core.training.joint_table import JointTable, render
from core.training.optimizer import set_learning_rate
from core.training.reporting import (
    Display,
    MetricsLog,
    Readings,
    raise_if_not_finite,
    raise_if_weights_broken,
)
from core.training.signals import StopSignal
from core.training.validation import Validation, validate
from core.weights.checkpoint import checkpoint_folder, save_checkpoint


@dataclass
class Run:
    """Everything that one run holds while it trains."""

    fabric: Fabric
    recipe: Recipe
    folder: Path
    policy: Policy
    module: _FabricModule  # the policy as Fabric wrapped it: precision, processes
    optimizer: _FabricOptimizer
    training: Loader
    validation: Loader
    task_of: Mapping[str, str]
    action_dim: int
    inference: Mapping[
        str, Any
    ]  # what a checkpoint carries beside the weights: normalisers, conventions
    joint_table: JointTable
    metrics: MetricsLog | None  # the first process writes
    display: Display
    console: Console
    stop: StopSignal
    readings: Readings = field(default_factory=Readings)
    last_checkpoint: Path | None = None
    validated: Validation | None = None  # what was measured after the newest step, if it was

    def close(self) -> None:
        """Close files and the display."""
        self.display.close()
        if self.metrics is not None:
            self.metrics.close()


def fit(run: Run, first: int) -> int:
    """Train from step `first` to the recipe's last, or until told to stop; return the steps done."""
    settings, fabric, optimizer, done = run.recipe.train, run.fabric, run.optimizer, first
    limit = settings.gradient_clip or float("inf")  # the norm is measured in either case
    position = first * settings.accumulation
    with closing(
        run.training.batches(settings.seed, position, fabric.global_rank, fabric.world_size)
    ) as batches:
        while done < settings.steps and not run.stop.requested(
            fabric, ask=done % settings.log_every == 0
        ):
            # seeds and the order of the data are functions of the step, so resuming saves neither;
            # dropout alone draws from PyTorch's global generator, which its layers hard-code
            seed_everything(_seed_of(done, run), verbose=False)
            factor = set_learning_rate(optimizer.optimizer, done, settings)
            measuring = (
                run.joint_table.measure(done + 1)
                if _measures_parts(done + 1, settings)
                else nullcontext()
            )
            seen = []
            # -------------------------------------------------------------------- the training step
            for micro in range(settings.accumulation):
                key = (TRAINING, settings.seed, done, fabric.global_rank, micro)
                batch, generator = next(batches), Generator.shared(key, fabric.device)
                with fabric.no_backward_sync(run.module, enabled=micro < settings.accumulation - 1):
                    losses = run.module(batch, generator)
                    fabric.backward(losses["total"] / settings.accumulation)
                seen.append((losses, batch.episodes))
            gradient_norm = fabric.clip_gradients(
                run.module, optimizer, max_norm=limit, error_if_nonfinite=False
            )
            with measuring:
                optimizer.step()
            optimizer.zero_grad()
            # --------------------------------------------------------------------------------------
            done += 1
            run.readings.record(done, seen, gradient_norm, factor)
            _after_step(run, done)
    _save(run, done)
    return done


def _seed_of(done: int, run: Run) -> int:
    return (
        run.recipe.train.seed * 1_000_003 + done * run.fabric.world_size + run.fabric.global_rank
    ) % 2**32


def _after_step(run: Run, done: int) -> None:
    settings = run.recipe.train
    last = done == settings.steps
    if _measures_parts(done, settings):
        _report_joint_table(run)
    if last or done % settings.log_every == 0:
        _report_losses(run)
    run.validated = _validate(run, done) if last or done % settings.validate_every == 0 else None
    if last or done % settings.checkpoint_every == 0:
        _save(run, done)


def _report_losses(run: Run) -> None:
    """Read the pending losses; a loss that is not finite ends the run here, before anything of it
    is saved.
    """
    for reading, values in run.readings.read(run.fabric):
        scaled = (
            run.recipe.train.precision == "16-mixed"
        )  # its loss scale is found by overflowing gradients
        checked = {
            name: value
            for name, value in values.items()
            if not (scaled and name == "gradient_norm")
        }
        raise_if_not_finite(reading, checked, run.last_checkpoint)
        losses = {("loss" if name == "total" else name): value for name, value in values.items()}
        _write(run, reading.step, {**losses, "learning_rate_factor": reading.learning_rate_factor})
        newest = (reading.step, losses)
    timings = run.display.update(*newest, run.training.waited)
    _write(run, newest[0], timings)


def _measures_parts(step: int, settings: TrainConfig) -> bool:
    return step in (1, settings.steps) or step % settings.joint_table_every == 0


def _report_joint_table(run: Run) -> None:
    table = run.joint_table
    for row in table.rows:
        measured = {key: float(value) for key, value in asdict(row).items() if key != "part"}
        _write(
            run, table.step, {f"joint/{row.part}/{key}": value for key, value in measured.items()}
        )
    if table.step in (1, run.recipe.train.steps):
        run.console.print(render(table))


def _validate(run: Run, done: int) -> Validation:
    fabric = run.fabric
    batches = run.validation.once(fabric.global_rank, fabric.world_size)
    measured = validate(fabric, run.policy, batches, run.task_of, run.action_dim)
    by_task = {f"validation/error/{task}": error for task, error in measured.by_task.items()}
    errors = {"validation/error": measured.error, "validation/constant": measured.constant}
    own = {} if measured.own is None else {"validation/own": measured.own}
    _write(run, done, {**errors, **own, **by_task})
    run.console.print(
        f"step {done}: validation error {measured.error:.4f}, best constant action per task "
        f"{measured.constant:.4f}: {abs(measured.improvement):.0%} {'below' if measured.improvement > 0 else 'above'}"
        + ("" if measured.own is None else f"; the policy head's own figure {measured.own:.4f}"),
        soft_wrap=True,
    )
    return measured


def _save(run: Run, done: int) -> None:
    """Save the step just done, once; losses not read yet are read first, so that nothing broken is
    saved.
    """
    if run.last_checkpoint == checkpoint_folder(run.folder, done):
        return
    if run.readings.pending:
        _report_losses(run)
    if run.metrics is None:
        return
    raise_if_weights_broken(run.policy, done, run.last_checkpoint)
    run.metrics.flush()
    error = run.validated.figure if run.validated else None
    state = {"step": done, "validation_error": error, **run.inference}
    run.last_checkpoint = save_checkpoint(
        run.folder,
        run.policy,
        run.optimizer.optimizer,
        state,
        run.recipe.train.keep_last,
        run.policy.frozen_weights,
    )


def _write(run: Run, step: int, values: Mapping[str, float]) -> None:
    if run.metrics is not None:
        run.metrics.write(step, values)
