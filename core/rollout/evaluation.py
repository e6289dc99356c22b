"""From a trained run to numbers: attempts are planned, rolled out in waves, kept as they end, and counted."""

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from core.data.contracts import ActionConvention
from core.errors import DataError, RecipeError
from core.quantization import parameter_count
from core.recipe import Recipe
from core.rollout import protocol
from core.rollout.actor import Actor, load_actor
from core.rollout.display import Display
from core.rollout.episodes import Trial
from core.rollout.journal import Journal, replace_file, write_rollout
from core.rollout.predictions import write_predictions
from core.rollout.preparation import inspect, spec_of
from core.rollout.protocol import Attempt
from core.rollout.results import STANDARD, Evaluation
from core.rollout.waves import Stage, Wave, try_chains, try_tasks
from core.rollout.workers import Description, open_workers
from core.sections import EvaluateConfig

Planned = Sequence[Attempt] | range  # one wave: attempts at tasks, or the seeds of chains


def evaluate(run: Path, recipe: Recipe, console: Console, output: Path | None = None) -> Evaluation:
    """Evaluate a run's policy as a recipe's [environment] and [evaluate] say; go on where a killed one stopped.

    output: the folder of results.json, episodes.jsonl, rollouts/ and predictions.npz; RUN/evaluation by default.
    Raises RecipeError where the environment is not what the policy or the recipe takes it for; DataError where the
    folder holds an evaluation of something else.
    """
    settings, folder = recipe.evaluate or EvaluateConfig(), output or run / "evaluation"
    world, actor = inspect(recipe), load_actor(run, settings.checkpoint, settings.store)
    actor.check(world.info)
    shown = recipe.demonstrations.tasks if recipe.demonstrations else ()
    names = protocol.task_names(settings.tasks, shown, world.tasks)
    identity = _identity(run, actor, recipe, world, protocol.describe(settings, names))
    plan, journal = _plan(settings, world, names), Journal(folder, identity)
    _check_done(journal, plan)
    _predict(actor, recipe, folder / "predictions.npz", console)
    _roll_out(plan, actor, recipe, world, journal, console)
    tiers = {name: world.tasks[name].tier for name in names}
    evaluation = _evaluation(identity, tiers, journal)
    replace_file(folder / "results.json", json.dumps(evaluation.to_json(), indent=2).encode())
    return evaluation


def _plan(settings: EvaluateConfig, world: Description, names: Sequence[str]) -> list[Planned]:
    attempts = protocol.attempts(settings, world.tasks, names)
    chains, lanes = protocol.seeds(settings.chains), settings.lanes
    waves = [attempts[first : first + lanes] for first in range(0, len(attempts), lanes)]
    return [*waves, *(chains[first : first + lanes] for first in range(0, len(chains), lanes))]


def _check_done(journal: Journal, plan: Sequence[Planned]) -> None:
    """Raise DataError where the finished waves do not begin the plan: phrasings have changed, for example."""
    done = [_attempted(wave) for wave in journal.waves]
    if done != [list(planned) for planned in plan[: len(done)]]:
        raise DataError(
            f"{journal.path}: holds other attempts than this evaluation makes; remove the file to evaluate anew"
        )


def _attempted(wave: Wave) -> Sequence[Attempt | int]:
    """What a wave attempted, as a plan lists it."""
    attempts = [Attempt(made.condition, made.task, made.seed, made.instruction) for made in wave.episodes]
    return attempts or [chain.seed for chain in wave.chains]


def _roll_out(
    plan: Sequence[Planned], actor: Actor, recipe: Recipe, world: Description, journal: Journal, console: Console
) -> None:
    """Roll out the waves that the journal lacks, and keep each as it ends."""
    settings = recipe.evaluate or EvaluateConfig()
    if not (missing := plan[len(journal.waves) :]):
        return
    display = Display(plan, journal.waves, console)
    with display, open_workers(spec_of(recipe), max(map(len, missing)), settings.timeout) as workers:
        stage = Stage(actor, workers, world.tasks, settings.execute, settings.lanes)
        recorder = Recorder(journal, actor)
        for planned in missing:
            if isinstance(planned, range):
                wave = try_chains(stage, planned)
            else:
                wave, trials = try_tasks(stage, planned, recorder.wants)
                recorder.record(planned, trials)
            journal.append(wave)
            display.update(wave)


class Recorder:
    """Keeps, of each task under the standard condition, the first success and the first failure to look at."""

    def __init__(self, journal: Journal, actor: Actor) -> None:
        self._folder = journal.path.parent / "rollouts"
        self._cameras, self._action = tuple(actor.info.cameras), actor.info.action
        self._recorded = {
            (episode.task, episode.success)
            for wave in journal.waves
            for episode in wave.episodes
            if episode.condition == STANDARD and episode.failure is None
        }

    def wants(self, attempt: Attempt) -> bool:
        """Whether an attempt may be one to look at."""
        kinds = {(attempt.task, True), (attempt.task, False)}
        return attempt.condition == STANDARD and not kinds <= self._recorded

    def record(self, attempts: Sequence[Attempt], trials: Sequence[Trial | None]) -> None:
        """Write those that are the first of their kind."""
        for attempt, trial in zip(attempts, trials, strict=True):
            if trial is None or not trial.records or trial.lane.failure is not None:
                continue
            if (attempt.task, trial.success) not in self._recorded:
                self._recorded.add((attempt.task, trial.success))
                opening = _opening(np.stack(trial.commands), self._action)
                write_rollout(self._folder, attempt, trial, self._cameras, opening)


def _opening(commands: np.ndarray, action: ActionConvention) -> np.ndarray:
    """Commands (n A) -> how far the first gripper is told to be open (n): 0 closed, 1 open; NaN without a gripper."""
    if not action.grippers:
        return np.full(len(commands), np.nan)
    gripper = action.grippers[0]
    opening: np.ndarray = (commands[:, gripper.dimension] - gripper.closed) / (gripper.open - gripper.closed)
    return opening.clip(0, 1)


def _predict(actor: Actor, recipe: Recipe, path: Path, console: Console) -> None:
    """Predictions are for the eye: an evaluation can do without, on a machine that lacks the data."""
    if path.exists():
        return
    try:
        write_predictions(actor, recipe, path)
    except (DataError, RecipeError) as error:
        reason = str(error).splitlines()[0]
        console.print(f"no predictions on validation episodes: {reason}", soft_wrap=True, markup=False)


def _evaluation(identity: dict[str, dict[str, Any]], tiers: dict[str, str], journal: Journal) -> Evaluation:
    seconds = sum(wave.seconds for wave in journal.waves)
    return Evaluation(
        policy=identity["policy"],
        environment=identity["environment"],
        protocol=identity["protocol"],
        tiers=tiers,
        episodes=[episode for wave in journal.waves for episode in wave.episodes],
        chains=[chain for wave in journal.waves for chain in wave.chains],
        time={
            "inference_ms": float(np.median([wave.inference_ms for wave in journal.waves])),
            "steps_per_second": sum(wave.steps for wave in journal.waves) / seconds,
            "seconds": seconds,
        },
    )


# ---------------------------------------------------------------------------------------------- what it depends on


def _identity(
    run: Path, actor: Actor, recipe: Recipe, world: Description, said: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """All that the outcomes depend on, as it reads when it comes back from JSON."""
    identity = {
        "policy": _policy(run, actor),
        "environment": _environment(recipe, world),
        "protocol": said | _machine(actor),
    }
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(identity))
    return plain


def _policy(run: Path, actor: Actor) -> dict[str, Any]:
    return {
        "run": run.absolute().name,
        "checkpoint": actor.checkpoint.folder.name,
        "step": actor.checkpoint.step,
        "recipe_sha256": _sha256(run / "recipe.toml"),
        "weights_sha256": _sha256(actor.checkpoint.folder / "model.safetensors"),
        "parameters": sum(parameter_count(parameter) for parameter in actor.policy.parameters()),
    }


def _environment(recipe: Recipe, world: Description) -> dict[str, Any]:
    config = recipe.as_dict()["environment"]
    ours = {name: metadata.version(name) for name in ("joinery", "torch", "numpy")} | {
        "python": platform.python_version()
    }
    return {"name": config.pop("name"), "config": config, "versions": {**ours, **world.versions}}


def _machine(actor: Actor) -> dict[str, Any]:
    """What rounding depends on."""
    device = torch.cuda.get_device_name(actor.device) if actor.device.type == "cuda" else actor.device.type
    return {"device": device, "threads": torch.get_num_threads()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
