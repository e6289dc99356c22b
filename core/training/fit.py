"""The training loop; core/training/train.py sets up everything that the loop needs.

One training step is one forward pass, one backward pass and one optimiser step for all parts
together.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.utilities.seed import seed_everything
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from rich.console import Console

from core.contracts.batch import State
from core.contracts.generator import TRAINING, Generator
from core.contracts.monitoring import Outcome
from core.loading.loader import Loader
from core.policy.policy import Policy
from core.recipe.contents import Recipe
from core.recipe.train_section import TrainConfig
from core.training.averages import WeightAverages
from core.training.carrying import gather, state_before
from core.training.early_stopping import EarlyStopping
from core.training.joint_table import JointTable, render
from core.training.loss_gradients import StepInputs, loss_gradients
from core.training.monitors import NO_CALLBACKS, Callbacks
from core.training.optimizer import set_learning_rate
from core.training.reporting import (
    Display,
    MetricsLog,
    Readings,
    describe_not_finite,
    raise_if_not_finite,
    raise_if_weights_broken,
)
from core.training.schedule import begins_stage
from core.training.signals import StopSignal
from core.training.skipping import Skipping
from core.training.stages import StagedTraining
from core.training.validation import Validation, validate
from core.weights.checkpoint import checkpoint_folder, save_checkpoint


@dataclass
class Run:
    """Everything that one run holds while it trains.

    module: the policy in Fabric's wrapper, which sets the precision and synchronises processes.
    task_of: {episode id: task name} of all episodes.
    action_dim: number of action dimensions (A).
    inference: what a checkpoint holds for acting in addition to the weights: normalisers,
        conventions.
    averages: moving averages of the weights, which are validated and act; None if `train.ema` is 0.
    metrics: the log that the first process writes; None in all other processes, which save nothing.
    callbacks: those of the recipe; none in all other processes.
    validation: loads the held-out windows; None if nothing is held out.
    newest_validation: the result of the validation after the newest step; None if there was no
        validation after that step.
    carried: for each micro-batch, the policy head's state after the newest step (B ...), with which
        the rows' next windows begin; None if every window begins afresh.
    """

    fabric: Fabric
    recipe: Recipe
    folder: Path
    policy: Policy
    module: _FabricModule
    optimizer: _FabricOptimizer
    training: Loader
    validation: Loader | None
    task_of: Mapping[str, str]
    action_dim: int
    inference: Mapping[str, Any]
    stages: StagedTraining
    joint_table: JointTable
    skipping: Skipping
    early_stopping: EarlyStopping
    averages: WeightAverages | None
    display: Display
    console: Console
    stop: StopSignal
    carried: list[State | None]
    metrics: MetricsLog | None = None
    callbacks: Callbacks = NO_CALLBACKS
    readings: Readings = field(default_factory=Readings)
    last_checkpoint: Path | None = None
    newest_validation: Validation | None = None

    def counts(self) -> dict[str, Any]:
        """Return what a checkpoint holds so that a resumed run goes on counting."""
        counts: dict[str, Any] = {}
        if self.skipping.total:
            skipping = {"total": self.skipping.total, "in_a_row": self.skipping.in_a_row}
            counts["skipped"] = skipping
        if self.early_stopping.patience:
            best = self.early_stopping.best
            counts["early_stopping"] = {
                "best": best if math.isfinite(best) else None,  # JSON has no infinity
                "since": self.early_stopping.since,
            }
        return counts

    def close(self, outcome: Outcome) -> None:
        """Close files, loggers and the display."""
        self.display.close()
        if self.metrics is not None:
            self.metrics.close(outcome)


def fit(run: Run, first: int) -> int:
    """Train until the recipe's last step or a stop signal; return the total number of steps done.

    first: number of steps that were done before.
    """
    config, fabric, optimizer = run.recipe.train, run.fabric, run.optimizer
    rank, world = fabric.global_rank, fabric.world_size
    # an infinite maximum clips nothing, but the norm of the gradient is still measured
    max_norm = config.gradient_clip or float("inf")
    skipped = first * config.accumulation
    batches = run.training.batches(config.seed, skipped, rank, world, config.accumulation)
    done = first
    with closing(batches):
        while done < config.steps and not run.early_stopping.is_due:
            if run.stop.requested(fabric, ask=done % config.log_every == 0):
                break
            step = done + 1  # the number of the step that begins here
            # All random numbers, and the order of the data, depend only on the recipe, the step and
            # the process's rank, so that a run can resume at any step without a saved random state.
            # Parts draw from `generator`; only PyTorch's dropout layers draw from the global
            # generator, which is seeded here.
            seed_everything((config.seed * 1_000_003 + done * world + rank) % 2**32, verbose=False)
            learning_rate_factor = set_learning_rate(optimizer.optimizer, done, config)
            counted_losses = run.stages.enter(done)
            is_due = _joint_table_is_due(step, config)
            joint_table = run.joint_table.measure(step) if is_due else nullcontext()
            run.skipping.begin_step()
            micro_batches = []
            # -------------------------------------------------------------------- the training step
            for micro in range(config.accumulation):
                batch = next(batches)
                key = (TRAINING, config.seed, done, rank, micro)
                generator = Generator.shared(key, fabric.device)
                state = state_before(run.policy.policy_head, run.carried[micro], batch)
                with fabric.no_backward_sync(run.module, enabled=micro < config.accumulation - 1):
                    losses, run.carried[micro] = run.module(batch, generator, state, counted_losses)
                    run.stages.check(done, losses)
                    fabric.backward(losses["total"] / config.accumulation)
                micro_batches.append((losses, batch.episodes))
            gradient_norm = fabric.clip_gradients(
                run.module, optimizer, max_norm=max_norm, error_if_nonfinite=False
            )
            losses_of_step = [losses for losses, _ in micro_batches]
            with joint_table:
                is_made = run.skipping.allows_update(losses_of_step, gradient_norm, run.carried)
                if is_made or run.skipping.scales_loss:  # the loss scaler must see every step
                    optimizer.step()
            optimizer.zero_grad()
            if is_due:
                inputs = StepInputs(batch, key, state, counted_losses, losses.keys() - {"total"})
                run.joint_table.losses = loss_gradients(fabric, run.policy, inputs)
            if run.averages is not None and is_made:
                run.averages.update(step, run.stages.frozen)
            # --------------------------------------------------------------------------------------
            values = run.readings.record(step, micro_batches, gradient_norm, learning_rate_factor)
            run.callbacks.after_step(step, values)
            after_step(run, step)
            done = step
    _save(run, done)
    return done


def after_step(run: Run, step: int) -> None:
    """Report, validate and save, each as often as the recipe says, and also after the last step."""
    config = run.recipe.train
    is_last = step == config.steps
    if _joint_table_is_due(step, config):
        _report_joint_table(run)
    if is_last or step % config.log_every == 0:
        _report_losses(run)
    run.newest_validation = None
    if run.validation is not None and (is_last or step % config.validate_every == 0):
        with _saved_if_it_fails(run, step):
            run.newest_validation = _validate(run, run.validation, step)
            run.early_stopping.note(run.newest_validation.selection_error)
            if run.early_stopping.is_due:
                _write(run, step, {"stopped_early": 1.0})
            metrics = run.newest_validation.metrics()
            _write(run, step, run.callbacks.after_validation(step, metrics))
    if is_last or step % config.checkpoint_every == 0:
        _save(run, step)


def _joint_table_is_due(step: int, config: TrainConfig) -> bool:
    return _joint_table_is_printed(step, config) or step % config.joint_table_every == 0


def _joint_table_is_printed(step: int, config: TrainConfig) -> bool:
    return step in (1, config.steps) or begins_stage(step - 1, config)


def _report_joint_table(run: Run) -> None:
    """Write the newest joint-training table; print the first and last one, and one per stage."""
    table = run.joint_table
    for row in table.rows:
        values = asdict(row)
        part = values.pop("part")
        values |= {f"gradient_of/{x}": norm for x, norm in table.losses.get(part, {}).items()}
        metrics = {f"joint/{part}/{name}": float(value) for name, value in values.items()}
        _write(run, table.step, metrics)
    if _joint_table_is_printed(table.step, run.recipe.train):
        run.console.print(*render(table), sep="\n")


def _report_losses(run: Run) -> None:
    """Read the pending losses, write them to the metrics, and show the newest losses.

    Raises TrainingError if a loss is not finite and its step was not skipped. Weights that such a
    loss has changed are never saved.
    """
    for reading, values in run.readings.read(run.fabric):
        is_skipped = run.skipping.is_skipped(values)
        if is_skipped:
            line = f"step {reading.step}: skipped: {describe_not_finite(reading, values)}"
            run.console.print(line, soft_wrap=True, markup=False, highlight=False)
            values = {name: value for name, value in values.items() if math.isfinite(value)}
        raise_if_not_finite(reading, values, run.last_checkpoint)
        run.skipping.count(reading.step, is_skipped)
        losses = {("loss" if name == "total" else name): value for name, value in values.items()}
        marks = {"skipped": 1.0} if is_skipped else {}
        factor = {"learning_rate_factor": reading.learning_rate_factor}
        _write(run, reading.step, {**losses, **factor, **marks})
        newest_step, newest_losses = reading.step, losses
    timings = run.display.update(newest_step, newest_losses, run.training.waited)
    _write(run, newest_step, timings)


@contextmanager
def _saved_if_it_fails(run: Run, step: int) -> Iterator[None]:
    """Save the weights if the `with` block fails, since they are good.

    If there are several processes, the others would wait for this one, so nothing is saved.
    """
    try:
        yield
    except Exception:
        if run.fabric.world_size == 1:
            _save(run, step)
        raise


def _validate(run: Run, held_out: Loader, step: int) -> Validation:
    """Validate the policy on the held-out episodes; write and print the validation errors."""
    fabric = run.fabric
    batches = held_out.once(fabric.global_rank, fabric.world_size)
    carries = run.recipe.data.sampling == "episodes"
    with run.averages.in_place_of_weights() if run.averages else nullcontext():
        validation = validate(fabric, run.policy, batches, run.task_of, run.action_dim, carries)
    _write(run, step, validation.metrics())
    line = f"step {step}: {validation}"
    if not math.isfinite(validation.selection_error):
        head = run.policy.boundary.name("policy_head")
        line += f"; not finite, so this checkpoint is never the best: look at {head}"
    run.console.print(line, soft_wrap=True, markup=False)
    return validation


def _save(run: Run, step: int) -> None:
    """Save a checkpoint after a step, unless there is one already.

    Pending losses are read and checked first, so that weights which are not finite are never saved.
    """
    if run.last_checkpoint == checkpoint_folder(run.folder, step):
        return
    if run.readings.pending:
        _report_losses(run)
    carried = gather(run.fabric, run.carried)
    if run.metrics is None:  # only the first process saves
        run.last_checkpoint = checkpoint_folder(run.folder, step)
        return
    raise_if_weights_broken(run.policy, step, run.last_checkpoint)
    run.metrics.flush()
    error = run.newest_validation.selection_error if run.newest_validation else None
    if error is not None and not math.isfinite(error):
        error = None  # such a checkpoint is never the best one
    run.last_checkpoint = save_checkpoint(
        run.folder,
        run.policy,
        run.optimizer.optimizer,
        {"step": step, "validation_error": error, **run.inference, **run.counts()},
        run.recipe.train.keep_last,
        run.policy.frozen_weights,
        run.averages.by_name() if run.averages else {},
        carried,
    )
    if figures := run.callbacks.after_checkpoint(step, run.last_checkpoint):
        _write(run, step, figures)
        run.metrics.flush()  # a run that goes on from here does not call the callbacks again


def _write(run: Run, step: int, values: Mapping[str, float]) -> None:
    if run.metrics is not None and values:
        run.metrics.write(step, values)
