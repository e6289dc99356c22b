"""The training loop: one forward, one backward, one optimiser step for all parts. `fit` is the whole of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.utilities.seed import seed_everything
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from rich.console import Console

from core.data.loader import Loader
from core.policy import Policy
from core.recipe import Recipe, TrainConfig
from core.training.checkpoint import save_checkpoint
from core.training.joint_table import JointTable, render
from core.training.optimizer import set_learning_rate
from core.training.reporting import Display, MetricsLog, Readings, raise_if_not_finite
from core.training.signals import StopSignal
from core.training.validation import Validation, validate


@dataclass
class Session:
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
    inference: Mapping[str, Any]  # what a checkpoint carries beside the weights: normalisers, conventions
    joint_table: JointTable
    metrics: MetricsLog | None  # the first process writes
    display: Display
    console: Console
    stop: StopSignal
    readings: Readings = field(default_factory=Readings)
    last_checkpoint: Path | None = None
    last_validation: Validation | None = None

    def close(self) -> None:
        """Close files and the display."""
        self.display.close()
        if self.metrics is not None:
            self.metrics.close()


def fit(session: Session, first: int) -> int:
    """Train from step `first` to the recipe's last, or until told to stop; return the steps done."""
    train, fabric, optimizer = session.recipe.train, session.fabric, session.optimizer
    batches = session.training.batches(train.seed, first * train.accumulation, fabric.global_rank, fabric.world_size)
    limit = train.gradient_clip or float("inf")  # the norm is measured in either case
    done = first
    while done < train.steps and not session.stop.requested(fabric, ask=done % train.log_every == 0):
        # randomness is a function of the step, as the order of the data is: resuming needs neither saved
        seed_everything((train.seed * 1_000_003 + done * fabric.world_size + fabric.global_rank) % 2**32, verbose=False)
        factor = set_learning_rate(optimizer.optimizer, done, train)
        seen = []
        # ------------------------------------------------------------------------------------ the training step
        for micro in range(train.accumulation):
            batch = next(batches)
            with fabric.no_backward_sync(session.module, enabled=micro < train.accumulation - 1):
                losses = session.module(batch)
                fabric.backward(losses["total"] / train.accumulation)
            seen.append((losses, batch.episodes))
        gradient_norm = fabric.clip_gradients(session.module, optimizer, max_norm=limit, error_if_nonfinite=False)
        with session.joint_table.measure(done + 1, wanted=_measures_parts(done + 1, train)):
            optimizer.step()
        optimizer.zero_grad()
        # ------------------------------------------------------------------------------------------------------
        done += 1
        session.readings.record(done, seen, gradient_norm, factor)
        _after_step(session, done)
    batches.close()  # type: ignore[attr-defined]
    _save(session, done)
    return done


def _after_step(session: Session, done: int) -> None:
    train = session.recipe.train
    last = done == train.steps
    if _measures_parts(done, train):
        _report_joint_table(session)
    if last or done % train.log_every == 0:
        _report_losses(session)
    if last or done % train.validate_every == 0:
        _validate(session, done)
    if not last and done % train.checkpoint_every == 0:
        _save(session, done)


def _report_losses(session: Session) -> None:
    """Read the pending losses; a loss that is not finite ends the run here, before anything of it is saved."""
    for reading, values in session.readings.read(session.fabric):
        scaled = session.recipe.train.precision == "16-mixed"  # its loss scale is found by overflowing gradients
        checked = {name: value for name, value in values.items() if not (scaled and name == "gradient_norm")}
        raise_if_not_finite(reading, checked, session.last_checkpoint)
        losses = {("loss" if name == "total" else name): value for name, value in values.items()}
        _write(session, reading.step, {**losses, "learning_rate_factor": reading.learning_rate_factor})
        newest = (reading.step, losses)
    timings = session.display.update(*newest, session.training.waited)
    _write(session, newest[0], timings)


def _measures_parts(step: int, train: TrainConfig) -> bool:
    return step in (1, train.steps) or step % train.joint_table_every == 0


def _report_joint_table(session: Session) -> None:
    table = session.joint_table
    for row in table.rows:
        measured = {key: float(value) for key, value in asdict(row).items() if key != "part"}
        _write(session, table.step, {f"joint/{row.part}/{key}": value for key, value in measured.items()})
    if table.step in (1, session.recipe.train.steps):
        session.console.print(render(table))


def _validate(session: Session, done: int) -> None:
    fabric = session.fabric
    batches = session.validation.once(fabric.global_rank, fabric.world_size)
    measured = validate(fabric, session.module, batches, session.task_of)
    session.last_validation = measured
    by_task = {f"validation/error/{task}": error for task, error in measured.by_task.items()}
    errors = {"validation/error": measured.error, "validation/constant": measured.constant}
    _write(session, done, {**errors, **by_task})
    session.console.print(
        f"step {done}: validation error {measured.error:.4f}, best constant action per task "
        f"{measured.constant:.4f}: {abs(measured.improvement):.0%} {'below' if measured.improvement > 0 else 'above'}",
        soft_wrap=True,
    )


def _save(session: Session, done: int) -> None:
    """Save the step just done; losses not read yet are read first, so that nothing broken is saved."""
    if session.readings.pending:
        _report_losses(session)
    if session.metrics is None:
        return
    session.metrics.flush()
    error = session.last_validation.error if session.last_validation else None
    state = {"step": done, "validation_error": error, **session.inference}
    session.last_checkpoint = save_checkpoint(
        session.folder, session.policy, session.optimizer.optimizer, state, session.recipe.train.keep_last
    )


def _write(session: Session, step: int, values: Mapping[str, float]) -> None:
    if session.metrics is not None:
        session.metrics.write(step, values)
