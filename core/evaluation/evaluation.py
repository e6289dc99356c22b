"""From a trained run to numbers: attempts are planned, rolled out, kept as they end, and counted."""

import hashlib
import json
import platform
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from core.environments.workers import Description, open_workers
from core.episodes.episode import ActionConvention
from core.errors import ConfigError, DataError
from core.evaluation.display import Display
from core.evaluation.journal import Entry, Journal, replace_file, write_rollout
from core.evaluation.predictions import write_predictions
from core.evaluation.preparation import inspect, spec_of
from core.policy.quantization import parameter_count
from core.recipe.recipe import Recipe
from core.recipe.sections import EvaluateConfig
from core.rollout import plan as protocol
from core.rollout.actor import Actor, load_actor
from core.rollout.attempt import Ended, begin, visual_features
from core.rollout.plan import Attempt, Planned, planned_as
from core.rollout.queue import Queue
from core.rollout.results import STANDARD, ChainResult, EpisodeResult, Evaluation
from core.rollout.rows import roll_out


def evaluate(run: Path, recipe: Recipe, console: Console, output: Path | None = None) -> Evaluation:
    """Evaluate a run's policy as a recipe's [environment] and [evaluate] say; go on where a killed
    one stopped.

    output: the folder of results.json, episodes.jsonl, rollouts/ and predictions.npz;
    RUN/evaluation by default.
    Raises ConfigError where the environment is not what the policy or the recipe takes it for;
    DataError where the folder holds an evaluation of something else.
    """
    settings, folder = recipe.evaluate or EvaluateConfig(), output or run / "evaluation"
    world, actor = inspect(recipe), load_actor(run, settings.checkpoint, settings.store)
    actor.check(world.info)
    shown = recipe.demonstrations.tasks if recipe.demonstrations else ()
    names = protocol.task_names(settings.tasks, shown, world.tasks)
    identity = _identity(run, actor, recipe, world, protocol.describe(settings, names))
    plan, journal = protocol.plan(settings, world.tasks, names), Journal(folder, identity)
    _check_done(journal, plan)
    _predict(actor, recipe, folder / "predictions.npz", console)
    _roll_out(plan, actor, recipe, world, journal, console)
    tiers = {name: world.tasks[name].tier for name in names}
    evaluation = _evaluation(identity, tiers, plan, journal)
    replace_file(folder / "results.json", json.dumps(evaluation.to_json(), indent=2).encode())
    return evaluation


def _check_done(journal: Journal, plan: Sequence[Planned]) -> None:
    """Raise DataError where what has ended is not planned, or ended twice: after a new phrasing."""
    done = [planned_as(entry.result) for entry in journal.entries]
    if len(set(done)) < len(done) or not set(done) <= set(plan):
        raise DataError(
            f"{journal.path}: holds other attempts than this evaluation makes; remove the file to evaluate anew"
        )


def _roll_out(
    plan: Sequence[Planned],
    actor: Actor,
    recipe: Recipe,
    world: Description,
    journal: Journal,
    console: Console,
) -> None:
    """Roll out what the journal lacks, and keep each result as it ends."""
    settings = recipe.evaluate or EvaluateConfig()
    results = [entry.result for entry in journal.entries]
    done = set(map(planned_as, results))
    if not (missing := [planned for planned in plan if planned not in done]):
        return
    recorder, display = Recorder(plan, journal, actor), Display(len(plan), results, console)
    visual = visual_features(actor.info)
    start = partial(
        begin,
        tasks=world.tasks,
        execute=settings.replan_steps,
        records=recorder.wants,
        visual=visual,
    )
    lanes, queue = settings.num_envs, Queue(missing, world.tasks)
    count = min(lanes, len(missing))
    with display, open_workers(spec_of(recipe), count, settings.timeout) as workers:
        for ended, timing in roll_out(actor, workers, lanes, queue, start):
            recorder.record(ended)
            journal.append(Entry(ended.result, timing))
            display.update(ended.result)


class Recorder:
    """Keeps each task's first success and failure in the plan, standard condition, to look at.

    What ends first is written at once, and gives way to what ends later and stands before it in the
    plan: so what is kept in the end depends neither on the number of rows nor on interruptions.
    """

    def __init__(self, plan: Sequence[Planned], journal: Journal, actor: Actor) -> None:
        self._folder = journal.path.parent / "rollouts"
        self._cameras, self._action = tuple(actor.info.cameras), actor.info.action
        self._place = {planned: place for place, planned in enumerate(plan)}
        self._kept: dict[tuple[str, bool], int] = {}  # {(task, success): place in the plan}
        for entry in journal.entries:
            if isinstance(entry.result, EpisodeResult):
                self._takes(entry.result)

    def wants(self, attempt: Attempt) -> bool:
        """Whether an attempt may be one to look at."""
        after_all = len(self._place)
        kept = [self._kept.get((attempt.task, success), after_all) for success in (True, False)]
        return attempt.condition == STANDARD and self._place[attempt] < max(kept)

    def record(self, ended: Ended) -> None:
        """Write what was recorded of an attempt, if it is the first of its kind so far."""
        result, trial = ended.result, ended.trial
        if trial is not None and isinstance(result, EpisodeResult) and self._takes(result):
            opening = _opening(np.stack(trial.commands), self._action)
            write_rollout(self._folder, result, trial, self._cameras, opening)

    def _takes(self, result: EpisodeResult) -> bool:
        """Whether a result is the first of its kind in the plan, of those that were given."""
        if result.condition != STANDARD or result.failure is not None:
            return False
        kind, place = (result.task, result.success), self._place[planned_as(result)]
        self._kept[kind] = min(place, self._kept.get(kind, place))
        return self._kept[kind] == place


def _opening(commands: np.ndarray, action: ActionConvention) -> np.ndarray:
    """Commands (n A) -> how far the first gripper is told to be open (n): 0 closed, 1 open; NaN
    without a gripper.
    """
    if not action.grippers:
        return np.full(len(commands), np.nan)
    gripper = action.grippers[0]
    opening: np.ndarray = (commands[:, gripper.dimension] - gripper.closed) / (
        gripper.open - gripper.closed
    )
    return opening.clip(0, 1)


def _predict(actor: Actor, recipe: Recipe, path: Path, console: Console) -> None:
    """Predictions are for the eye: an evaluation can do without, on a machine that lacks the data."""
    if path.exists():
        return
    try:
        write_predictions(actor, recipe, path)
    except (DataError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        console.print(
            f"no predictions on validation episodes: {reason}", soft_wrap=True, markup=False
        )


def _evaluation(
    identity: dict[str, dict[str, Any]],
    tiers: dict[str, str],
    plan: Sequence[Planned],
    journal: Journal,
) -> Evaluation:
    results = {planned_as(entry.result): entry.result for entry in journal.entries}
    in_order = [results[planned] for planned in plan]
    return Evaluation(
        policy=identity["policy"],
        environment=identity["environment"],
        protocol=identity["protocol"],
        tiers=tiers,
        episodes=[result for result in in_order if isinstance(result, EpisodeResult)],
        chains=[result for result in in_order if isinstance(result, ChainResult)],
        time=_time(journal.entries, identity["protocol"]["lanes"]),
    )


def _time(entries: Sequence[Entry], lanes: int) -> dict[str, float]:
    """What the time went into, over all processes that had a share in the evaluation."""
    seconds = sum(entry.timing.seconds for entry in entries)
    inference_ms = [ms for entry in entries for ms in entry.timing.inference_ms]
    busy_rows = sum(entry.timing.busy_rows for entry in entries)
    return {
        "inference_ms": float(np.median(inference_ms or [0.0])),
        "policy_steps": len(inference_ms),
        "rows_busy": busy_rows / max(1, lanes * len(inference_ms)),
        "steps_per_second": sum(entry.result.steps for entry in entries) / seconds,
        "seconds": seconds,
    }


# ------------------------------------------------------------------------------- what it depends on


def _identity(
    run: Path, actor: Actor, recipe: Recipe, world: Description, rules: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """All that the outcomes depend on, as it reads when it comes back from JSON."""
    identity = {
        "policy": _policy(run, actor),
        "environment": _environment(recipe, world),
        "protocol": rules | _machine(actor) | {"acts_on": _history(actor)},
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


def _history(actor: Actor) -> str:
    """Which frames the policy acts on."""
    frames = actor.policy.action_tokens.context
    match actor.policy.keeps:
        case "layers":
            return f"the last {frames // 2 + 1} to {frames} frames, on kept layers"
        case "carry":
            return "all frames, carried on by the backbone"
    return f"the last {frames} frames" if frames > 1 else "the frame, and what the head remembers"


def _machine(actor: Actor) -> dict[str, Any]:
    """What rounding depends on."""
    device = (
        torch.cuda.get_device_name(actor.device)
        if actor.device.type == "cuda"
        else actor.device.type
    )
    return {"device": device, "threads": torch.get_num_threads()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
