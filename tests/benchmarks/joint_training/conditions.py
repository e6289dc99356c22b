"""The ways of training that are compared, and the recipe of each run.

All runs have the parts, the optimiser and the schedule of recipes/quickstart.toml. They differ in
which parts train when, and in the weights they begin with.
"""

import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.recipe.contents import PARTS

BASE = Path(__file__).parents[3] / "recipes" / "quickstart.toml"
HEAD = "policy_head"
BODY = tuple(kind for kind in PARTS if kind != HEAD)
CLASSES = "auxiliary/discrete"  # the auxiliary head that trains the body without the policy head

OLD_TASKS = tuple(
    f"{verb}_{colour}" for verb in ("lift", "rotate") for colour in ("red", "green", "blue")
)
NEW_TASKS = tuple(
    f"push_{colour}_{side}" for side in ("left", "right") for colour in ("red", "green", "blue")
)


@dataclass(frozen=True)
class Stage:
    """A stage: its share of the steps, the parts that train, and whose losses count."""

    share: float
    parts: tuple[str, ...]
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """A way of training.

    key: its name in folders and in the JSON.
    title: its name in tables.
    start: "random", or "pretrained": the weights of a policy that has learned the old tasks.
    stages: none means that all parts train in every step.
    alternates: whether each stage is one step long, and the stages take turns.
    """

    key: str
    title: str
    start: str
    stages: tuple[Stage, ...] = ()
    alternates: bool = False


@dataclass(frozen=True)
class Experiment:
    """Ways of training that learn the same tasks from the same demonstrations.

    baseline: the condition with which all others are compared.
    demonstrations: for training, of each task.
    steps: of the baseline.
    """

    key: str
    title: str
    baseline: Condition
    others: tuple[Condition, ...]
    demonstrations: int
    steps: int

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions, the baseline first."""
        return (self.baseline, *self.others)


def experiments() -> tuple[Experiment, Experiment]:
    """Return the two experiments: from random weights, and from parts pretrained on other tasks."""
    in_turn = (
        Stage(0.5, (*BODY, CLASSES), (CLASSES,)),
        Stage(0.5, (HEAD,), (HEAD,)),
    )
    first = Experiment(
        key="from_random",
        title="From random weights",
        baseline=Condition("joint", "joint training", "random"),
        others=(
            *_frozen("random"),
            Condition(
                "joint_with_classes",
                "all parts jointly, with the auxiliary head's loss",
                "random",
                (Stage(1, (*PARTS, CLASSES)),),
            ),
            Condition(
                "one_after_another",
                "first the other parts, then the policy head",
                "random",
                in_turn,
            ),
            Condition(
                "alternating",
                "alternating steps of the other parts and the policy head",
                "random",
                (Stage(0.5, BODY), Stage(0.5, (HEAD,))),
                alternates=True,
            ),
        ),
        demonstrations=100,
        steps=200,
    )
    second = Experiment(
        key="from_pretrained",
        title="From parts pretrained on other tasks",
        baseline=Condition("joint", "joint training, from pretrained parts", "pretrained"),
        others=(
            *_frozen("pretrained"),
            Condition(
                "head_only", "only the policy head trains", "pretrained", (Stage(1, (HEAD,)),)
            ),
            Condition("from_random", "joint training, from random weights", "random"),
        ),
        demonstrations=10,
        steps=100,
    )
    return first, second


def _frozen(start: str) -> tuple[Condition, ...]:
    """Return a condition for each part, in which that part is frozen and all others train."""
    return tuple(
        Condition(
            f"frozen_{kind}",
            f"{kind.replace('_', ' ')} frozen",
            start,
            (Stage(1, tuple(part for part in PARTS if part != kind)),),
        )
        for kind in PARTS
    )


def pretraining_recipe(store: Path, seed: int, steps: int) -> dict[str, Any]:
    """Return the recipe that trains all parts jointly on the old tasks."""
    return _recipe(store, OLD_TASKS, seed, steps)


def recipe_of(
    condition: Condition, store: Path, seed: int, steps: int, pretrained: Path
) -> dict[str, Any]:
    """Return the recipe of one run, as the tables of its TOML file.

    steps: optimiser steps; for conditions with two stages, an even number.
    pretrained: the run on the old tasks with the same seed.
    """
    recipe = _recipe(store, NEW_TASKS, seed, steps)
    if condition.start == "pretrained":
        for kind in PARTS:
            recipe[kind]["pretrained"] = str(pretrained.absolute())
    else:
        for kind in PARTS:
            recipe[kind]["pretrained"] = False  # random weights are meant, also in frozen parts
    if condition.stages:
        recipe["train"]["stages"] = [
            {
                "steps": 1 if condition.alternates else round(stage.share * steps),
                "parts": list(stage.parts),
                "losses": list(stage.losses),
            }
            for stage in condition.stages
        ]
    if any(CLASSES in stage.parts for stage in condition.stages):
        recipe["auxiliary"] = [{"name": "discrete"}]
    return recipe


def _recipe(store: Path, tasks: Sequence[str], seed: int, steps: int) -> dict[str, Any]:
    recipe: dict[str, Any] = copy.deepcopy(dict(_base()))
    del recipe["demonstrations"]  # they are recorded before the first run
    recipe["data"]["path"] = str(store.absolute())
    recipe["train"] |= {
        "seed": seed,
        "steps": steps,
        "devices": 1,
        "strategy": "auto",
        "warmup_steps": min(20, steps // 5),
        "validate_every": max(1, steps // 5),
        "checkpoint_every": steps,
    }
    recipe["evaluate"] = {"tasks": list(tasks), "episodes": 8, "num_envs": 8}
    return recipe


def _base() -> Mapping[str, Any]:
    return tomllib.loads(BASE.read_text(encoding="utf-8"))
