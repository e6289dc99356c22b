"""From a recipe to a trained policy: opens the data, builds the policy, resumes if asked, and hands
over to `fit`.
"""

import json
import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.utilities.seed import seed_everything
from rich.console import Console

from core.errors import CheckpointError, ConfigError
from core.loading.training_data import TrainingData, open_data
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.recipe.recipe import PARTS, Recipe, load_recipe
from core.recipe.sections import EvaluateConfig, StoreConfig
from core.registry.catalogue import load_plugins
from core.training.fit import Run, fit
from core.training.joint_table import JointTable
from core.training.optimizer import build_optimizer
from core.training.reporting import Display, MetricsLog
from core.training.signals import StopSignal
from core.weights.checkpoint import Checkpoint, checkpoints, load_checkpoint

# what a continuation may change: nothing that the weights depend on
FREE_ON_RESUME = {
    *(
        f"train.{key}"
        for key in (
            "keep_last",
            "log_every",
            "validate_every",
            "checkpoint_every",
            "joint_table_every",
        )
    ),
    *(f"data.{key}" for key in ("path", "threads", "prefetch")),
    *(f"evaluate.{field.name}" for field in fields(EvaluateConfig)),
    *(
        f"{kind}.pretrained" for kind in PARTS
    ),  # a checkpoint holds the weights, or a checksum of them
}


def train(recipe: Recipe, folder: Path, *, resume: bool) -> int:
    """Train into `folder`; return the exit code: 0, or 128 + the signal that stopped the run."""
    settings = recipe.train
    fabric = _launch(recipe)
    newest = _prepare(fabric, recipe, folder, resume)
    first = newest.step if newest else 0
    with StopSignal() as stop:
        run = _set_up(fabric, recipe, folder, newest, stop)
        try:
            done = fit(run, first)
        finally:
            run.close()
    _summarise(run, done)
    return 0 if done == settings.steps or stop.received is None else 128 + stop.received


def _launch(recipe: Recipe) -> Fabric:
    """Start the processes; raises ConfigError for an accelerator that is not there."""
    settings = recipe.train
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            strategy=_strategy(recipe),
            devices=settings.devices,
            precision=settings.precision,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"train.accelerator, strategy, devices, precision: {' '.join(str(error).split())}"
        ) from None
    # Fabric would cast a batch's targets to half precision, too; each part casts what it computes
    # with
    fabric.strategy.precision.convert_input = lambda data: data  # type: ignore[method-assign]
    fabric.launch()
    return fabric


def _strategy(recipe: Recipe) -> str:
    """Fabric's strategy.

    Heads that read layers or vision leave some weights of the backbone without a gradient, and so
    do insulated ones: several processes must then search for what there is to exchange. Heads of
    the readout alone spare that cost.
    """
    heads = [recipe.parts["policy_head"], *recipe.auxiliary.values()]
    searches = any(
        getattr(head.component.build, "needs", True) or head.role.insulate for head in heads
    )
    if searches and recipe.train.devices > 1:
        return "ddp_find_unused_parameters_true"
    return recipe.train.strategy


def _prepare(fabric: Fabric, recipe: Recipe, folder: Path, resume: bool) -> Checkpoint | None:
    """Claim the run's folder, or find the checkpoint to go on from."""
    saved = checkpoints(folder)
    if saved and not resume:
        raise CheckpointError(
            f"{folder}: holds a run already, at step {saved[-1].step}: continue it with --resume, "
            "or name another folder with --output"
        )
    if resume and (folder / "recipe.toml").exists():
        _check_same(recipe, folder / "recipe.toml")
    elif resume:
        raise CheckpointError(
            f"{folder}: no run to resume: leave out --resume, or name its folder with --output"
        )
    fabric.barrier()
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".recipe.writing").write_text(recipe.as_toml(), encoding="utf-8")
        (folder / ".recipe.writing").replace(folder / "recipe.toml")
    return saved[-1] if saved else None


def _check_same(recipe: Recipe, before: Path) -> None:
    """Refuse to continue a run with another recipe. Raises ConfigError with every difference."""
    started = load_recipe(
        before, [], load_plugins()
    )  # as a recipe: keys that its version did not have get defaults
    old, new = _flat(tomllib.loads(started.as_toml())), _flat(tomllib.loads(recipe.as_toml()))
    for sections in (old, new):
        sections["data.stores"] = _whatever_the_place(sections.get("data.stores", []))
    recorded_there = any(key.startswith("demonstrations.") for key in (*old, *new))
    free = FREE_ON_RESUME | {
        key for key in (*old, *new) if key.startswith("environment.") and not recorded_there
    }
    differences = [
        f"{key}: the run in {before.parent} was started with {old.get(key)!r}, the recipe now says {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in free
    ]
    if differences:
        raise ConfigError(differences)


def _whatever_the_place(stores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A moved store is the same one, if it is still called the same."""
    labels = [StoreConfig(Path(store["path"]), store.get("name")).label for store in stores]
    return [
        {**store, "path": None, "name": label} for store, label in zip(stores, labels, strict=True)
    ]


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    tables = {name: keys for name, keys in recipe.items() if isinstance(keys, dict)}
    flat = {
        f"{section}.{key}": value for section, keys in tables.items() for key, value in keys.items()
    }
    return flat | {name: value for name, value in recipe.items() if name not in tables}


def _set_up(
    fabric: Fabric, recipe: Recipe, folder: Path, newest: Checkpoint | None, stop: StopSignal
) -> Run:
    """Everything in the order in which it depends on what comes before."""
    settings = recipe.train
    seed_everything(settings.seed, verbose=False)
    data = open_data(recipe)
    policy = _build(recipe, data, from_checkpoint=newest is not None)
    micro_batch = settings.batch_size // (settings.accumulation * fabric.world_size)
    training, validation = data.loaders(policy.text_encoder.tokenize, micro_batch, fabric.device)
    optimizer = build_optimizer(policy, recipe)
    module, wrapped_optimizer = fabric.setup(policy, optimizer)
    inference = _inference(data)
    if newest:
        _check_same_data(newest, inference, recipe)
        load_checkpoint(newest, policy, optimizer, policy.published)
    first = newest.step if newest else 0
    console = Console(quiet=not fabric.is_global_zero)
    if recipe.data.stores:
        console.print("\n".join(data.describe()), soft_wrap=True, markup=False, highlight=False)
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
        joint_table=JointTable(policy, optimizer),
        metrics=MetricsLog(folder, first) if fabric.is_global_zero else None,
        display=Display(settings.steps, first, settings.batch_size, console=console),
        console=console,
        stop=stop,
        last_checkpoint=newest.folder if newest else None,
    )


def _build(recipe: Recipe, data: TrainingData, *, from_checkpoint: bool) -> Policy:
    """Build the policy; raises ConfigError where stores lack cameras that its vision encoder would
    mix with others.
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
    lacks_cameras = not data.info.cameras.keys().isdisjoint(data.training.lacking)
    if lacks_cameras and not policy.vision_encoder.separates_cameras:
        name = recipe.parts["vision_encoder"].component.name
        raise ConfigError(
            f"vision_encoder.name: '{name}' mixes cameras, and not every store has all; set data.cameras"
        )
    return policy


def _inference(data: TrainingData) -> dict[str, Any]:
    """What acting needs beside the weights: it travels with every checkpoint."""
    info, stores = data.info, [dataset.view.store for dataset in data.datasets]
    normalizers = [
        {
            "action_normalizer": dataset.action_normalizer.to_json(),
            "proprio_normalizer": dataset.proprio_normalizer.to_json(),
        }
        for dataset in data.datasets
    ]
    labels = [dataset.label for dataset in data.datasets]
    return {
        **normalizers[0],
        **(
            {"stores": dict(zip(labels, normalizers, strict=True))}
            if data.recipe.data.stores
            else {}
        ),
        "action_convention": asdict(info.action),
        "cameras": {name: asdict(camera) for name, camera in info.cameras.items()},
        **(
            {"features": {name: asdict(of) for name, of in info.features.items()}}
            if info.features
            else {}
        ),
        "proprio": list(info.proprio),
        "fps": info.fps,
        "trained_on": {
            "episodes": sum(map(len, stores)),
            "frames": sum(store.frame_count for store in stores),
        },
    }


def _check_same_data(checkpoint: Checkpoint, inference: dict[str, Any], recipe: Recipe) -> None:
    """A moved store is the same store; one with other statistics or conventions is not what the run
    was trained on.
    """
    now = json.loads(json.dumps(inference))
    if changed := [key for key in now if checkpoint.state.get(key) != now[key]]:
        stores = ", ".join(str(source.path) for source in recipe.data.store_configs)
        raise CheckpointError(
            f"{stores}: not the data that {checkpoint.folder} was trained on: {', '.join(changed)} changed; "
            "bring back that data, or start a new run with --output"
        )


def _summarise(run: Run, done: int) -> None:
    console, steps = run.console, run.recipe.train.steps
    outcome = "finished" if done == steps else "stopped"
    console.print(f"{outcome} at step {done} of {steps}: {run.folder}", soft_wrap=True)
    if done < steps:
        console.print("continue with the same command and --resume", soft_wrap=True)
