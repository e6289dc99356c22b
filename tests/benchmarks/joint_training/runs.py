"""Trains and evaluates every way of training with every seed; a run that exists is not repeated."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from core.errors import DataError, JoineryError
from core.rollout.results import Evaluation, read_evaluation
from tests.benchmarks.joint_training.conditions import (
    NEW_TASKS,
    OLD_TASKS,
    Experiment,
    pretraining_recipe,
    recipe_of,
)

HELD_OUT = 2  # demonstrations of each task for validation, as in the base recipe
PRETRAINING_DEMONSTRATIONS = 100
PRETRAINING_STEPS = 400


@dataclass(frozen=True)
class Plan:
    """One run: its folder, its recipe, and what it is compared as.

    budget: "samples" for as many steps as the baseline, "compute" for as much processor time.
    """

    folder: Path
    experiment: str
    condition: str
    budget: str
    seed: int
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a run reached.

    curve: {step: validation error}.
    """

    plan: Plan
    evaluation: Evaluation
    curve: Mapping[int, float]

    @property
    def success(self) -> float:
        """The share of attempts that succeeded."""
        return self.evaluation.overall().rate


def record(output: Path, demonstrations: Iterable[int]) -> None:
    """Record the stores: one of the old tasks, and one of the new tasks for each number."""
    _collect(store_of_old_tasks(output), OLD_TASKS, PRETRAINING_DEMONSTRATIONS)
    for count in sorted(set(demonstrations)):
        _collect(store_of_new_tasks(output, count), NEW_TASKS, count)


def store_of_old_tasks(output: Path) -> Path:
    """Return the store to pretrain on."""
    return output / "old_tasks.zarr"


def store_of_new_tasks(output: Path, count: int) -> Path:
    """Return the store with `count` training demonstrations of each new task."""
    return output / f"new_tasks_{count}.zarr"


def _collect(store: Path, tasks: Sequence[str], count: int) -> None:
    """Record `count` demonstrations of each task for training, and more to be held out."""
    total = str(count + HELD_OUT)
    words = ["--tasks", ",".join(tasks), "--episodes", total, "--noise", "0.17"]
    _python("-m", "core.cli", "collect", "tabletop", str(store), *words)


def pretraining_plan(output: Path, seed: int) -> Plan:
    """Return the run that learns the old tasks with a seed."""
    recipe = pretraining_recipe(store_of_old_tasks(output), seed, PRETRAINING_STEPS)
    folder = output / "pretraining" / f"seed_{seed}"
    return Plan(folder, "pretraining", "joint", "samples", seed, recipe)


def plan_runs(
    output: Path, experiment: Experiment, costs: Mapping[str, float], seeds: Sequence[int]
) -> list[Plan]:
    """Return the runs of an experiment: each condition with each budget and each seed.

    costs: {condition: processor time of its step over that of the baseline's}. A condition with
        nearly the same cost as the baseline needs no run of its own for equal compute.
    """
    plans = []
    for seed in seeds:
        pretrained = pretraining_plan(output, seed).folder
        for condition in experiment.conditions:
            steps_of = {"samples": experiment.steps}
            if needs_own_budget(costs[condition.key]):
                steps_of["compute"] = 2 * round(experiment.steps / costs[condition.key] / 2)
            for budget, steps in steps_of.items():
                folder = output / experiment.key / f"{condition.key}_{budget}" / f"seed_{seed}"
                store = store_of_new_tasks(output, experiment.demonstrations)
                recipe = recipe_of(condition, store, seed, steps, pretrained)
                plan = Plan(folder, experiment.key, condition.key, budget, seed, recipe)
                plans.append(plan)
    return plans


def needs_own_budget(cost: float) -> bool:
    """Return whether equal compute is more than 5 % off equal samples."""
    return abs(1 / cost - 1) > 0.05


def run_all(plans: Sequence[Plan], jobs: int) -> list[Result]:
    """Train and evaluate every plan, `jobs` at a time; return the results in the same order.

    Raises DataError if a folder holds the run of another plan, and JoineryError if a run fails;
    runs that have begun then end first, and no other begins.
    """
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(partial(_run, total=len(plans)), plans, range(1, len(plans) + 1)))


def _run(plan: Plan, number: int, total: int) -> Result:
    """Train and evaluate one plan, go on where it was interrupted, or read what it reached."""
    results, recipe = plan.folder / "evaluation" / "results.json", plan.folder / "planned.toml"
    if results.exists():
        _check_planned(plan, recipe)
    else:
        print(f"{number} of {total}: {plan.folder}", flush=True)
        plan.folder.mkdir(parents=True, exist_ok=True)
        recipe.write_text(tomli_w.dumps(plan.recipe), encoding="utf-8")
        resume = ["--resume"] if (plan.folder / "checkpoints").exists() else []
        _python("-m", "core.run", str(recipe), "--output", str(plan.folder), *resume)
    return Result(plan, read_evaluation(results), _curve(plan.folder))


def _check_planned(plan: Plan, path: Path) -> None:
    """Raise DataError if a finished run had another recipe than the study now plans for it.

    path: the recipe of the finished run.
    """
    old = _without_folders(tomllib.loads(path.read_text(encoding="utf-8")))
    new = _without_folders(plan.recipe)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if changed:
        raise DataError(
            f"{plan.folder}: holds a run of another recipe, which differs in "
            f"{', '.join(changed)}: remove that folder, or name another --output"
        )


def _without_folders(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with the mere names of the folders in it: the output may have been moved."""
    return {
        name: {
            key: Path(value).name if key in ("path", "pretrained") and value else value
            for key, value in section.items()
        }
        if isinstance(section, Mapping)
        else section
        for name, section in recipe.items()
    }


def _curve(folder: Path) -> dict[int, float]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return {
        entry["step"]: entry["validation/error"] for entry in entries if "validation/error" in entry
    }


def _python(*words: str) -> None:
    """Run Python with one thread, so that the result does not depend on the number of cores.

    Raises JoineryError with the last lines of its output if it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise JoineryError(
            "\n".join(
                [
                    f"exit code {done.returncode} of: {shlex.join(command)}",
                    *lines[-10:],
                    "give that command yourself to see all it says; when its cause is mended, "
                    "begin the study again: it keeps what is finished",
                ]
            )
        )
