"""Sets up everything for training; the training loop itself is in core/training/fit.py.

This module opens the data, builds the policy and its optimiser, loads a checkpoint if there is one,
and calls `fit`.
"""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.utilities.seed import seed_everything
from rich.console import Console

from core.contracts.batch import State
from core.contracts.monitoring import Outcome
from core.errors import CheckpointError, ConfigError, TrainingError
from core.loading.instructions import doubtful_tokens, tokenize_instructions
from core.loading.opening import open_data
from core.loading.training_data import TrainingData
from core.policy.assembly import build_policy
from core.policy.initial_weights import assumptions_of, describe_initial_weights
from core.policy.policy import Policy
from core.recipe.recipe import PARTS, Recipe, load_recipe
from core.recipe.sections import EvaluateConfig, StoreConfig
from core.registry.catalogue import load_plugins
from core.system.files import remove_leftovers, written_aside
from core.training.averages import WeightAverages
from core.training.carrying import share_of_process
from core.training.fit import Run, fit
from core.training.joint_table import JointTable
from core.training.monitors import Callbacks, Loggers
from core.training.optimizer import build_optimizer
from core.training.reporting import Display, MetricsLog
from core.training.signals import StopSignal
from core.training.stages import StagedTraining
from core.weights.checkpoint import Checkpoint, checkpoints, load_carried, load_checkpoint

# keys that may change when a run is resumed, because the weights do not depend on them
FREE_ON_RESUME = {
    "train.keep_last",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.joint_table_every",
    "train.loggers",
    "train.callbacks",
    "data.path",
    "data.threads",
    "data.prefetch",
    *(f"evaluate.{field.name}" for field in fields(EvaluateConfig)),
    # the path of pretrained weights may change, because a checkpoint holds these weights or their
    # checksum
    *(f"{kind}.pretrained" for kind in PARTS),
}


def train(recipe: Recipe, folder: Path, *, resume: bool) -> int:
    """Train, with all outputs in `folder`; return the exit code of the command.

    The exit code is 0, or 128 + the number of the signal that stopped the run.
    """
    fabric = _launch(recipe)
    newest = _prepare_folder(fabric, recipe, folder, resume)
    with StopSignal() as stop:
        run = _set_up(fabric, recipe, folder, newest, stop)
        first = newest.step if newest else 0
        with _watched(run, first):
            done = fit(run, first)
    steps = recipe.train.steps
    outcome = "finished" if done == steps else "stopped"
    run.console.print(f"{outcome} at step {done} of {steps}: {folder}", soft_wrap=True)
    if done < steps:
        run.console.print("continue with the same command and --resume", soft_wrap=True)
    return 0 if done == steps or stop.received is None else 128 + stop.received


@contextmanager
def _watched(run: Run, first: int) -> Iterator[None]:
    """Let the recipe's loggers and callbacks watch the training inside the `with` block.

    first: number of steps done before this process began.
    """
    outcome: Outcome = "failed"
    try:
        if run.fabric.is_global_zero:
            loggers = Loggers.start(run.recipe, run.folder, first, run.console)
            run.metrics = MetricsLog(run.folder, first, loggers)
            run.callbacks = Callbacks.start(run.recipe.callbacks, run.folder)
        run.callbacks.on_start(first)
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


def _launch(recipe: Recipe) -> Fabric:
    """Start the processes; raises ConfigError for an accelerator that does not exist."""
    config = recipe.train
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            strategy=_strategy(recipe),
            devices=config.devices,
            precision=config.precision,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"train.accelerator, strategy, devices, precision: {' '.join(str(error).split())}"
        ) from None
    # Fabric would cast a whole batch to half precision, including the targets. So this cast is
    # turned off, and each part casts only the inputs of its computation.
    fabric.strategy.precision.convert_input = lambda data: data  # type: ignore[method-assign]
    fabric.launch()
    return fabric


def _strategy(recipe: Recipe) -> str:
    """Return the name of Fabric's strategy for the run.

    If a head is insulated, or reads layers or vision, some weights of the backbone may get no
    gradient, and in a stage, the weights of the parts that rest get none. In these cases, a run of
    several processes must find out which weights have gradients before it exchanges the gradients,
    and this search costs time. Otherwise it is not needed.
    """
    heads = [recipe.parts["policy_head"], *recipe.auxiliary.values()]
    some_gradients_are_missing = any(
        getattr(head.component.build, "needs", True) or head.kind_settings.insulate
        for head in heads
    ) or bool(recipe.train.stages)
    if some_gradients_are_missing and recipe.train.devices > 1:
        return "ddp_find_unused_parameters_true"
    return recipe.train.strategy


# ------------------------------------------------------------------------------- the run's folder


def _prepare_folder(
    fabric: Fabric, recipe: Recipe, folder: Path, resume: bool
) -> Checkpoint | None:
    """Write the recipe into the run's folder; return the checkpoint from which to resume.

    Raises CheckpointError if `resume` is false and the folder holds a run, or if `resume` is true
    and the folder holds no run. Raises ConfigError if the run was started with another recipe.
    """
    newest = next(reversed(checkpoints(folder)), None)
    if newest and not resume:
        raise CheckpointError(
            f"{folder}: holds a run already, at step {newest.step}: continue it with --resume, "
            "or name another folder with --output"
        )
    path = folder / "recipe.toml"
    if resume and not path.exists():
        raise CheckpointError(
            f"{folder}: no run to resume: leave out --resume, or name its folder with --output"
        )
    if resume:
        _check_same_recipe(recipe, path)
    fabric.barrier()
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with written_aside(path) as aside:
            aside.write_text(recipe.as_toml(), encoding="utf-8")
    return newest


def _check_same_recipe(recipe: Recipe, path: Path) -> None:
    """Raise ConfigError, with all differences, if a started run cannot resume with this recipe.

    It can resume if every key that affects the weights still has the same value.

    path: path of the recipe.toml in the folder of the run.
    """
    # load the file as a recipe: a key that did not exist when the run started then gets its default
    old = _values_by_key(load_recipe(path, [], load_plugins()))
    new = _values_by_key(recipe)
    keys = old.keys() | new.keys()
    free = set(FREE_ON_RESUME)
    if not any(key.startswith("demonstrations.") for key in keys):
        # the environment may change, because it gives no training data
        free |= {key for key in keys if key.startswith("environment.")}
    differences = [
        f"{key}: the run in {path.parent} was started with {old.get(key)!r}, "
        f"the recipe now says {new.get(key)!r}"
        for key in sorted(keys - free)
        if old.get(key) != new.get(key)
    ]
    if differences:
        raise ConfigError(differences)


def _values_by_key(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as {"section.key": value}; a list of tables in the recipe becomes one value.

    A store is represented by its label and not by its path, so that it may be moved before a run is
    resumed. For the same reason, auxiliary heads are without the source of their first weights.
    """
    values: dict[str, Any] = {}
    for name, section in tomllib.loads(recipe.as_toml()).items():
        if isinstance(section, dict):
            values.update({f"{name}.{key}": value for key, value in section.items()})
        else:
            values[name] = section
    stores = []
    for store in values.get("data.stores", []):
        label = StoreConfig(Path(store["path"]), store.get("name")).label
        stores.append({**store, "path": None, "name": label})
    values["data.stores"] = stores
    heads = values.get("auxiliary", [])
    values["auxiliary"] = [{**head, "pretrained": None} for head in heads]
    return values


# ------------------------------------------------------------------------- data, policy, optimiser


def _set_up(
    fabric: Fabric, recipe: Recipe, folder: Path, newest: Checkpoint | None, stop: StopSignal
) -> Run:
    """Open the data, build the policy and its optimiser, and load the newest checkpoint."""
    config = recipe.train
    seed_everything(config.seed, verbose=False)
    data = open_data(recipe)
    policy = _build_policy(recipe, data, from_checkpoint=newest is not None)
    tokens = tokenize_instructions(data.instructions, policy.text_encoder)
    micro_batch = config.batch_size // (config.accumulation * fabric.world_size)
    training, validation = data.loaders(tokens.__getitem__, micro_batch, fabric.device)
    optimizer = build_optimizer(policy, recipe)
    module, wrapped_optimizer = fabric.setup(policy, optimizer)
    averages = WeightAverages(policy, config.ema) if config.ema else None
    inference = _inference_state(data)
    if newest:
        _check_same_data(newest, inference, recipe)
        averages_by_name = averages.by_name() if averages else {}
        load_checkpoint(newest, policy, optimizer, policy.frozen_weights, averages_by_name)
    carried: list[State | None] = [None] * config.accumulation
    if recipe.data.sampling == "episodes":
        # every row begins an episode at the first step, and a run that resumes goes on
        initial = policy.policy_head.initial_state(config.batch_size)
        whole = load_carried(newest, initial) if newest else initial
        carried = list(share_of_process(fabric, whole, config.accumulation))
    first = newest.step if newest else 0
    console = Console(quiet=not fabric.is_global_zero)
    lines = [*(data.describe() if recipe.data.stores else ()), data.describe_held_out()]
    lines += data.doubts()
    doubts = (*doubtful_tokens(tokens, policy.text_encoder), *assumptions_of(policy))
    lines += [f"warning: {line}" for line in doubts]
    if newest is None:
        lines.append(describe_initial_weights(policy, recipe))
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    return Run(
        fabric=fabric,
        recipe=recipe,
        folder=folder,
        policy=policy,
        module=module,
        optimizer=wrapped_optimizer,
        training=training,
        validation=validation,
        task_of=data.task_of(),
        action_dim=data.action_spec.dim,
        inference=inference,
        stages=StagedTraining(policy, config),
        joint_table=JointTable(policy, optimizer),
        averages=averages,
        display=Display(config.steps, first, config.batch_size, console=console),
        console=console,
        stop=stop,
        carried=carried,
        last_checkpoint=newest.folder if newest else None,
    )


def _build_policy(recipe: Recipe, data: TrainingData, *, from_checkpoint: bool) -> Policy:
    """Return the policy that the recipe describes, built for the recipe's data.

    Raises ConfigError if a store lacks a camera and the vision encoder mixes the tokens of cameras.
    """
    policy = build_policy(
        recipe,
        data.image_shapes,
        data.action_spec,
        data.proprio_dim,
        features=data.feature_specs,
        embodiments=data.embodiments,
        from_checkpoint=from_checkpoint,
    )
    cameras_are_lacking = not data.info.cameras.keys().isdisjoint(data.training.lacking)
    if cameras_are_lacking and not policy.vision_encoder.separates_cameras:
        name = recipe.parts["vision_encoder"].component.name
        raise ConfigError(
            f"vision_encoder.name: '{name}' mixes cameras, and not every store has all; "
            "set data.cameras"
        )
    return policy


def _inference_state(data: TrainingData) -> dict[str, Any]:
    """Return what acting needs in addition to the weights; every checkpoint holds a copy."""
    info = data.info
    stores = [dataset.view.store for dataset in data.datasets]
    normalizers = [
        {
            "action_normalizer": dataset.action_normalizer.to_json(),
            "proprio_normalizer": dataset.proprio_normalizer.to_json(),
        }
        for dataset in data.datasets
    ]
    state: dict[str, Any] = dict(normalizers[0])
    if data.recipe.data.stores:
        labels = [dataset.label for dataset in data.datasets]
        state["stores"] = dict(zip(labels, normalizers, strict=True))
    state["action_convention"] = asdict(info.action)
    state["cameras"] = {name: asdict(camera) for name, camera in info.cameras.items()}
    if info.features:
        state["features"] = {name: asdict(feature) for name, feature in info.features.items()}
    if info.assumed:
        state["assumed"] = dict(info.assumed)
    state["proprio"] = list(info.proprio)
    state["fps"] = info.fps
    state["trained_on"] = {
        "episodes": sum(map(len, stores)),
        "frames": sum(store.frame_count for store in stores),
    }
    return state


def _check_same_data(checkpoint: Checkpoint, inference: dict[str, Any], recipe: Recipe) -> None:
    """Raise CheckpointError if the data's statistics or conventions differ from the checkpoint's.

    The paths of the stores are not compared, because the stores may have been moved.
    """
    state = json.loads(json.dumps(inference))
    if changes := [key for key in state if checkpoint.state.get(key) != state[key]]:
        stores = ", ".join(str(config.path) for config in recipe.data.store_configs)
        raise CheckpointError(
            f"{stores}: not the data that {checkpoint.folder} was trained on: "
            f"{', '.join(changes)} changed; bring back that data, "
            "or start a new run with --output"
        )
