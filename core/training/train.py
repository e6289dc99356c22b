"""Sets up everything for training; the training loop itself is in core/training/fit.py.

This module opens the data, builds the policy and its optimiser, loads a checkpoint if there is one,
and calls `fit`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric
from lightning_fabric.utilities.seed import seed_everything
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor
from torch.optim import Optimizer

from core.contracts.batch import State
from core.contracts.monitoring import Outcome
from core.errors import ConfigError, JoineryError, TrainingError
from core.loading.instructions import TokensOf, doubtful_tokens, tokenize_instructions
from core.loading.loader import Loader
from core.loading.opening import open_data
from core.loading.training_data import TrainingData
from core.policy.assembly import build_policy
from core.policy.initial_weights import weights_to_keep
from core.policy.policy import Policy
from core.policy.weight_sources import assumptions_of, describe_initial_weights
from core.recipe.contents import Recipe
from core.recipe.packages import changed_packages
from core.system.console import output
from core.training.averages import WeightAverages
from core.training.carrying import share_of_process
from core.training.compilation import compilation_explained, compile_blocks
from core.training.continuations import Continuation, change_at, comparable_from
from core.training.fit import Run, fit
from core.training.inference_state import inference_state
from core.training.joint_table import JointTable
from core.training.library_errors import library_errors_in_one_line
from core.training.monitors import Callbacks, Loggers
from core.training.optimizer import build_optimizer
from core.training.reporting import Display, MetricsLog
from core.training.restoring import (
    carried_state,
    check_data,
    restore,
    restore_early_stopping,
    restore_skipping,
)
from core.training.run_folder import Start, claim, describe_change, find_start, record_start
from core.training.schedule import doubtful_warmup
from core.training.signals import StopSignal
from core.training.stages import StagedTraining
from core.training.trial import try_policy
from core.training.unreached import describe_unreached


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool,
    with_changes: bool = False,
    moved: Mapping[str, str] | None = None,
) -> int:
    """Train, with all outputs in `folder`; return the exit code of the command.

    The exit code is 0, or 128 + the number of the signal that stopped the run.

    resume: go on from the newest checkpoint in the folder, bit for bit.
    with_changes: go on although the recipe or the data differ, and record the changes.
    moved: {former place of a file or folder: its place now}, of those that the recipe in the
        folder names, or those of runs with whose weights the policy begins.
    """
    with claim(folder, resume=resume), library_errors_in_one_line():
        start = find_start(recipe, folder, resume=resume, with_changes=with_changes, moved=moved)
        fabric = launch(recipe)
        with StopSignal() as stop:
            run = set_up(fabric, recipe, folder, start, stop, writes=True)
            with _watched(run, start.step), compilation_explained():
                done = fit(run, start.step)
    for line in _outcome(run, done):
        run.console.print(line, soft_wrap=True)
    is_complete = done == recipe.train.steps or run.early_stopping.is_due
    return 0 if is_complete or stop.received is None else 128 + stop.received


def _outcome(run: Run, done: int) -> Iterator[str]:
    """Yield lines about how training ended, after `done` steps."""
    config, stopping = run.recipe.train, run.early_stopping
    skipped = f"; {run.skipping.total} of them were skipped" if run.skipping.total else ""
    where = f"at step {done} of {config.steps}: {run.folder}{skipped}"
    if done == config.steps:
        yield f"finished {where}"
    elif stopping.is_due:
        yield (
            f"stopped early {where}; the last {stopping.since} validations brought no error below "
            f"{stopping.best:.4f}"
        )
        if run.recipe.evaluate and run.recipe.evaluate.checkpoint == "last":
            yield 'the last checkpoint is evaluated; evaluate.checkpoint = "best" takes the best'
    else:
        yield f"stopped {where}"
        yield "continue with the same command and --resume"


@contextmanager
def _watched(run: Run, first: int) -> Iterator[None]:
    """Let the recipe's loggers and callbacks watch the training inside the `with` block.

    first: number of steps done before this process began.
    """
    outcome: Outcome = "failed"
    try:
        _start_monitors(run, first)
        yield
        outcome = "success" if run.stop.received is None else "aborted"
        run.callbacks.on_end(outcome)
    except BaseException:
        if outcome == "failed":
            with suppress(TrainingError):  # the error that ended training is the one to show
                run.callbacks.on_end(outcome)
        raise
    finally:
        run.close(outcome)


def _start_monitors(run: Run, first: int) -> None:
    """Start loggers and callbacks in the first process; if that fails, all processes end.

    Only the first process shows the error: the others would show that they lost it.
    """
    failure: JoineryError | None = None
    if run.fabric.is_global_zero:
        try:
            loggers = Loggers.start(run.recipe, run.folder, first, run.console)
            run.metrics = MetricsLog(run.folder, first, loggers)
            run.callbacks = Callbacks.start(run.recipe.callbacks, run.folder)
            run.callbacks.on_start(first)
        except JoineryError as error:
            failure = error
    if run.fabric.broadcast(failure is not None):
        raise failure or SystemExit(0)


def launch(recipe: Recipe) -> Fabric:
    """Start the processes; raises ConfigError for an accelerator that does not exist."""
    config = recipe.train
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            strategy=config.strategy,
            devices=config.devices,
            precision=config.precision,
        )
        # Fabric would cast a whole batch to half precision, including the targets. So this cast is
        # turned off, and each part casts only the inputs of its computation.
        fabric.strategy.precision.convert_input = lambda data: data  # type: ignore[method-assign]
        fabric.launch()
    except JoineryError:
        raise
    # Fabric also reads the environment variables of a cluster, with errors of many types
    except Exception as error:
        variable = "" if not isinstance(error, KeyError) else " is no environment variable here"
        raise ConfigError(
            "train.accelerator, strategy, devices, precision: "
            f"{' '.join(str(error).split())}{variable}{_cluster_advice()}"
        ) from error
    return fabric


def _cluster_advice() -> str:
    """Say what to do if Fabric takes this process for a job of a cluster."""
    if "SLURM_NTASKS" not in os.environ:
        return ""
    return (
        "; this process runs in a job of SLURM: start it by srun, with --ntasks-per-node equal to "
        "train.devices, or, in an interactive job, set SLURM_JOB_NAME=bash"
    )


# ------------------------------------------------------------------------- data, policy, optimiser


@dataclass(frozen=True)
class _Built:
    """What the recipe and the data make, before a checkpoint is loaded.

    module, fabric_optimizer: policy and optimiser in Fabric's wrappers.
    training, validation: load the windows to train on, and those that are held out.
    frozen: the weights of which the run keeps a copy; see `weights_to_keep`.
    lines: what to say about them.
    """

    data: TrainingData
    policy: Policy
    optimizer: Optimizer
    module: _FabricModule
    fabric_optimizer: _FabricOptimizer
    training: Loader
    validation: Loader | None
    stages: StagedTraining
    frozen: Mapping[str, Tensor]
    lines: list[str]


def set_up(
    fabric: Fabric, recipe: Recipe, folder: Path, start: Start, stop: StopSignal, *, writes: bool
) -> Run:
    """Open the data, build the policy and its optimiser, and load the checkpoint to go on from.

    The folder changes last: what raises an error leaves it as it was.

    writes: False writes nothing into `folder`, for a dry run.
    """
    built, config = _build(fabric, folder, start), start.recipe.train
    data, policy = built.data, built.policy
    inference = inference_state(data)
    check_data(start, inference, start.recipe)
    continuations = start.continuations_with(inference)
    change = change_at(continuations, start.step)
    averages = WeightAverages(policy, config.ema) if config.ema else None
    if start.checkpoint:
        restore(start.checkpoint, change, policy, built.optimizer, averages, start.recipe)
    carried = _carried(fabric, start.recipe, policy, start, change)
    if comparable := comparable_from(continuations):
        inference["comparable_from"] = comparable
    if writes:
        record_start(fabric, recipe, folder, start, continuations, built.frozen)
    console = output(quiet=not fabric.is_global_zero)
    lines = [*built.lines, *(describe_change(change) if change else ())]
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    return Run(
        fabric=fabric,
        recipe=start.recipe,
        folder=folder,
        policy=policy,
        module=built.module,
        optimizer=built.fabric_optimizer,
        training=built.training,
        validation=built.validation,
        task_of=data.task_of(),
        action_dim=data.action_spec.dim,
        inference=inference,
        stages=built.stages,
        joint_table=JointTable(policy, built.optimizer),
        skipping=restore_skipping(start.checkpoint, change, fabric, policy, config),
        early_stopping=restore_early_stopping(start.checkpoint, change, config.patience),
        averages=averages,
        carried=carried,
        last_checkpoint=start.checkpoint.folder if start.checkpoint else None,
        console=console,
        stop=stop,
        display=Display(config.steps, start.step, config.batch_size, console=console),
    )


def _build(fabric: Fabric, folder: Path, start: Start) -> _Built:
    """Open the data, build the policy and its optimiser, and try the policy.

    Raises ConfigError, DataError or PolicyError for what cannot be trained.
    """
    recipe, config = start.recipe, start.recipe.train
    seed_everything(config.seed, verbose=False)
    data = open_data(recipe)
    if config.patience and not data.validation.window_count:
        raise ConfigError(
            "train.patience: no episode is held out, so there is no validation error to stop at; "
            "drop the key, or hold out episodes (data.validation_episodes)"
        )
    policy = _build_policy(start, data, folder)
    frozen = weights_to_keep(policy, recipe)  # now, since Fabric may cast the policy to bfloat16
    tokens = tokenize_instructions(data.instructions, policy.text_encoder)
    micro_batch = config.batch_size // (config.accumulation * fabric.world_size)
    training, validation = data.loaders(tokens.__getitem__, micro_batch, fabric.device)
    optimizer = build_optimizer(policy, recipe)
    unreached = try_policy(fabric, policy, data, tokens)
    # after the trial: PyTorch compiles again, for any size, what it meets with a second size
    compiled = compile_blocks(policy, fabric.device) if config.compile else {}
    module, fabric_optimizer = fabric.setup(policy, optimizer)
    lines = _remarks(start, data, policy, tokens, unreached, folder)
    lines += [f"compiled: {count} blocks of {part}" for part, count in compiled.items()]
    return _Built(
        data=data,
        policy=policy,
        optimizer=optimizer,
        module=module,
        fabric_optimizer=fabric_optimizer,
        training=training,
        validation=validation,
        stages=StagedTraining(policy, config),
        frozen=frozen,
        lines=lines,
    )


def _carried(
    fabric: Fabric, recipe: Recipe, policy: Policy, start: Start, change: Continuation | None
) -> list[State | None]:
    """Return the policy head's state before each micro-batch; None: every window begins afresh."""
    config = recipe.train
    if recipe.data.sampling == "windows":
        return [None] * config.accumulation
    # every row begins an episode at the first step, and a run that resumes goes on
    initial = policy.policy_head.initial_state(config.batch_size)
    whole = carried_state(start.checkpoint, change, initial)
    return list(share_of_process(fabric, whole, config.accumulation))


def _remarks(
    start: Start,
    data: TrainingData,
    policy: Policy,
    tokens: TokensOf,
    unreached: Sequence[str],
    folder: Path,
) -> list[str]:
    """Return lines about the data and the initial weights, and warnings.

    unreached: names of weights that no loss reaches.
    """
    recipe, begins = start.recipe, start.checkpoint is None
    doubts = (
        *doubtful_tokens(tokens, policy.text_encoder),
        *assumptions_of(policy),
        *doubtful_warmup(recipe.train),
        *describe_unreached(unreached),
        *(() if begins else changed_packages(folder, recipe)),
    )
    return [
        *(data.describe() if recipe.data.stores else ()),
        data.describe_held_out(),
        *data.doubts(),
        *(f"warning: {line}" for line in doubts),
        *([describe_initial_weights(policy, recipe), *policy.origin] if begins else ()),
    ]


def _build_policy(start: Start, data: TrainingData, folder: Path) -> Policy:
    """Return the policy that the recipe describes, built for the recipe's data.

    Raises ConfigError if a store lacks a camera and the vision encoder mixes the tokens of cameras.
    """
    recipe = start.recipe
    policy = build_policy(
        recipe,
        data.image_shapes,
        data.action_spec,
        data.proprio_dim,
        features=data.feature_specs,
        embodiments=data.embodiments,
        resumed_run=folder if start.checkpoint else None,
        moved=start.moved,
    )
    cameras_are_lacking = not data.info.cameras.keys().isdisjoint(data.training.lacking)
    if cameras_are_lacking and not policy.vision_encoder.separates_cameras:
        name = recipe.parts["vision_encoder"].component.name
        raise ConfigError(
            f"vision_encoder.name: '{name}' mixes cameras, and not every store has all; "
            "set data.cameras"
        )
    return policy
