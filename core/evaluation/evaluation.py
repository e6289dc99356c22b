"""Evaluates a trained run: makes the plan, runs its rollouts, and writes results.json."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from core.environments.repeatability import in_words, warning
from core.environments.workers import Description, EnvironmentFailed, open_workers
from core.errors import ConfigError, DataError, PolicyError
from core.evaluation.display import Display
from core.evaluation.files import write_file
from core.evaluation.hints import find_hints
from core.evaluation.identity import identity_of
from core.evaluation.latency import latency_ms
from core.evaluation.predictions import write_predictions
from core.evaluation.preparation import describe_environment, environment_spec, first_call
from core.evaluation.recorder import RolloutRecorder
from core.evaluation.results_log import LogEntry, PlanSummary, ResultsLog, summarize
from core.recipe.contents import Recipe
from core.recipe.packages import changed_packages
from core.recipe.sections import EvaluateConfig
from core.rollout.actor import Actor, load_actor
from core.rollout.attempt import start_rollout, visual_features
from core.rollout.plan import (
    PlannedRollout,
    describe_protocol,
    plan_rollouts,
    planned_rollout,
    task_names,
)
from core.rollout.queue import Queue
from core.rollout.results import Evaluation, Result, read_evaluation
from core.rollout.runner import run_rollouts
from core.rollout.smoothness import jerk
from core.store.location import URL


def evaluate(
    run: Path,
    recipe: Recipe,
    console: Console,
    output: Path | None = None,
    moved: Mapping[str, str] | None = None,
    *,
    asks_urls: bool = False,
) -> Evaluation:
    """Evaluate the policy of a run; [environment] and [evaluate] of its recipe say how.

    If the process was killed, the same call continues the evaluation where it stopped.

    output: folder for results.json, episodes.jsonl, rollouts/ and predictions.npz; default:
        RUN/evaluation.
    moved: {former place of a file or folder: its place now}, for building the policy.
    asks_urls: whether training data at a URL are read, for predictions and hints. If not, a line
        says so: a run that somebody else trained may name any server.

    Raises ConfigError if the environment does not fit the policy or the recipe, and DataError if
    the folder holds another evaluation.
    """
    settings, folder = recipe.evaluate or EvaluateConfig(), output or run / "evaluation"
    environment = describe_environment(recipe, look=True)
    actor = load_actor(run, settings.checkpoint, settings.store, moved=moved)
    actor.check(environment.info)
    _print_warnings(run, recipe, actor, environment, console)
    demonstrated = recipe.demonstrations.tasks if recipe.demonstrations else ()
    names = task_names(settings.tasks, demonstrated, environment.tasks)
    protocol = describe_protocol(settings, names)
    identity = identity_of(run, actor, recipe, environment, protocol)
    plan = plan_rollouts(settings, environment.tasks, names)
    tiers = {name: environment.tasks[name].tier for name in names}
    log = _open_log(folder, identity, plan, tiers)
    reads_data = asks_urls or not _names_url(recipe, console)
    if reads_data:
        _write_predictions(actor, recipe, folder / "predictions.npz", console)
    hints = _known_hints(folder)
    if hints is None:
        hints = find_hints(actor, recipe, environment, plan, identity) if reads_data else ()
        for hint in hints:
            console.print(f"hint: {hint}", soft_wrap=True, markup=False, highlight=False)
    _run_missing_rollouts(plan, actor, recipe, environment, log, console)
    evaluation = replace(_summarize(identity, environment, plan, tiers, log), hints=hints)
    latency = latency_ms(actor, environment.tasks[names[0]].instructions[0])
    evaluation = replace(evaluation, time={**evaluation.time, "latency_ms": latency})
    write_file(folder / "results.json", json.dumps(evaluation.to_json(), indent=2).encode())
    return evaluation


def _names_url(recipe: Recipe, console: Console) -> bool:
    """Whether training data are at a URL; a line then says what is left out, and how to get it."""
    urls = [source.path for source in recipe.data.store_configs if isinstance(source.path, URL)]
    if urls:
        console.print(
            f"no predictions on validation episodes: the training data are at {urls[0]}, and only "
            f"training reads a URL of the recipe; joinery validate RUN {urls[0]} compares them",
            soft_wrap=True,
            markup=False,
        )
    return bool(urls)


def _print_warnings(
    run: Path, recipe: Recipe, actor: Actor, environment: Description, console: Console
) -> None:
    """Print what is assumed, which packages have changed, and whether scenes can be repeated."""
    if assumed := actor.info.assumed:
        console.print(f"warning: assumed about the training data: {', '.join(assumed)}")
    lines = list(changed_packages(run, recipe))
    demonstrated = recipe.demonstrations.tasks if recipe.demonstrations else ()
    call = first_call(recipe.evaluate or EvaluateConfig(), demonstrated, environment)
    if line := warning(str(environment_spec(recipe)), call, environment.scene_differences):
        lines.append(line)
    for line in lines:
        console.print(f"warning: {line}", soft_wrap=True, markup=False, highlight=False)


def _summarize(
    identity: Mapping[str, Any],
    environment: Description,
    plan: Sequence[PlannedRollout],
    tiers: Mapping[str, str],
    log: ResultsLog,
) -> Evaluation:
    """Return the logged results in the order of the plan."""
    order = {planned: position for position, planned in enumerate(plan)}
    results = sorted(
        (entry.result for entry in log.entries), key=lambda result: order[planned_rollout(result)]
    )
    same_scene = {"same_scene_twice": in_words(environment.scene_differences)}
    identity = {**identity, "environment": {**identity["environment"], **same_scene}}
    return summarize(identity, log.entries, results, tiers)


def _open_log(
    folder: Path,
    identity: Mapping[str, Any],
    plan: Sequence[PlannedRollout],
    tiers: Mapping[str, str],
) -> ResultsLog:
    """Open the log of results; raises DataError if it holds other attempts than the plan."""
    log = ResultsLog(folder, identity, PlanSummary(len(plan), tiers))
    logged_rollouts = [planned_rollout(entry.result) for entry in log.entries]
    has_duplicates = len(set(logged_rollouts)) < len(logged_rollouts)
    if has_duplicates or not set(logged_rollouts) <= set(plan):
        raise DataError(
            f"{log.path}: holds other attempts than this evaluation makes; "
            "remove the file to evaluate anew"
        )
    return log


def _known_hints(folder: Path) -> Sequence[str] | None:
    """Return the hints of an evaluation that is complete already; None if it is not."""
    try:
        evaluation = read_evaluation(folder / "results.json")
    except DataError:
        return None
    return evaluation.hints


def raise_if_all_broke(evaluation: Evaluation) -> None:
    """Raise EnvironmentFailed, with the most frequent reason, if every attempt broke.

    Such an evaluation has measured nothing, although its success rate is a number.
    """
    results: list[Result] = [*evaluation.episodes, *evaluation.chains]
    reasons = Counter(result.failure for result in results if result.failure)
    if not results or reasons.total() < len(results):
        return
    ((reason, count),) = reasons.most_common(1)
    often = "each time" if count == len(results) else f"{count} times"
    raise EnvironmentFailed(
        f"all {len(results)} attempts broke, so nothing was measured; {often}: {reason}; "
        "mend what broke, remove the results and evaluate again"
    )


def _write_predictions(actor: Actor, recipe: Recipe, path: Path, console: Console) -> None:
    """Write predictions.npz, or print why not: only this step needs the recipe's stores."""
    if path.exists():
        return
    try:
        write_predictions(actor, recipe, path)
    except (DataError, ConfigError, PolicyError) as error:
        reason = str(error).splitlines()[0]
        console.print(
            f"no predictions on validation episodes: {reason}", soft_wrap=True, markup=False
        )


def _run_missing_rollouts(
    plan: Sequence[PlannedRollout],
    actor: Actor,
    recipe: Recipe,
    environment: Description,
    log: ResultsLog,
    console: Console,
) -> None:
    """Run the rollouts that the log lacks, and log each result when its rollout ends."""
    settings = recipe.evaluate or EvaluateConfig()
    results = [entry.result for entry in log.entries]
    logged_rollouts = {planned_rollout(result) for result in results}
    missing = [planned for planned in plan if planned not in logged_rollouts]
    if not missing:
        return
    num_rows = settings.num_envs
    num_workers = min(num_rows, len(missing))
    queue = Queue(missing, environment.tasks)
    with (
        Display(len(plan), results, console) as display,
        RolloutRecorder(log.path.parent / "rollouts", plan, results, actor.info) as recorder,
        open_workers(environment_spec(recipe), num_workers, settings.timeout) as workers,
    ):
        start = partial(
            start_rollout,
            tasks=environment.tasks,
            replan_steps=settings.replan_steps,
            record=recorder.begin,
            visual=visual_features(actor.info),
            names=settings.new_names,
            jerk=partial(jerk, convention=actor.info.action, normalizer=actor.action_normalizer),
        )
        for result, timing in run_rollouts(
            actor, workers, num_rows, queue, start, environment.replayable
        ):
            recorder.save(result)
            log.append(LogEntry(result, timing))
            display.update(result)
