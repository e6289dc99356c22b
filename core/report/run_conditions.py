"""The conditions of an evaluation in words and units, and in which of them evaluations differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.demonstrations.collect import recorded_versions
from core.report.run_success import condition_name
from core.report.wording import duration, label, percent, significant, text
from core.rollout.results import Evaluation

NOT_RECORDED = "not recorded"
# of a checksum, so much tells two files apart at a glance
SHOWN_DIGITS = 12
Write = Callable[[Any], str]


def _count(number: int) -> str:
    return f"{number:,}"


def _checksum(digits: str) -> str:
    return digits[:SHOWN_DIGITS]


def _conditions(names: Sequence[str]) -> str:
    return ", ".join(map(condition_name, names)) or "none"


def _control_episodes(number: int | None) -> str:
    return "as many as without" if number is None else _count(number)


def _steps(by_task: Mapping[str, int]) -> str:
    """Write the control steps that tasks allow: one number if all tasks allow the same."""
    return _count(next(iter(by_task.values()))) if len({*by_task.values()}) == 1 else text(by_task)


# {key in results.json: (what the page calls it, how its value is written)}; the keys "execute" and
# "lanes" are those of the first results
POLICY: Mapping[str, tuple[str, Write]] = {
    "run": ("run", text),
    "checkpoint": ("checkpoint", text),
    "step": ("trained for, optimiser steps", _count),
    "recipe_sha256": ("recipe, SHA-256", _checksum),
    "weights_sha256": ("weights, SHA-256", _checksum),
    "parameters": ("parameters", _count),
    "packages": ("packages of its parts", text),
    "components": ("component", text),
}
PROTOCOL: Mapping[str, tuple[str, Write]] = {
    "episodes": ("attempts at each task", _count),
    "chains": ("chains of tasks", _count),
    "execute": ("actions executed of each chunk", _count),
    "lanes": ("rows of the policy's batch", _count),
    "control_episodes": ("attempts at each task under each control", _control_episodes),
    "controls": ("controls", _conditions),
    "swap": ("words that are swapped", text),
    "store": ("normalisation of the store", text),
    "tasks": ("tasks", text),
    "max_steps": ("control steps allowed", _steps),
    "first_seed": ("first seed", str),
    "success": ("success", text),
    "device": ("device", text),
    "threads": ("threads", _count),
    "acts_on": ("the policy acts on", text),
}
ENVIRONMENT: Mapping[str, tuple[str, Write]] = {
    "name": ("environment", text),
    "same_scene_twice": ("same scene when begun again", text),
}
TIME: Mapping[str, tuple[str, Write]] = {
    "inference_ms": ("policy step, median", lambda value: f"{significant(value)} ms"),
    "latency_ms": ("policy step for one robot, median", lambda value: f"{significant(value)} ms"),
    "environment_ms": ("environment step, median", lambda value: f"{significant(value)} ms"),
    "policy_steps": ("policy steps", _count),
    "rows_busy": ("rows of the batch in use", percent),
    "steps_per_second": (
        "control steps of all environments",
        lambda value: f"{significant(value)} per second",
    ),
    "seconds": ("duration", duration),
}


# conditions in which two runs differ anyway, and which other sections of a comparison show
OF_EACH_RUN = ("run", "recipe_sha256", "parameters", "components")


@dataclass(frozen=True)
class Line:
    """A row of a table: the name of the row, and a text for each run."""

    name: str
    texts: Sequence[str]


def condition_groups(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    """Return {group: {condition in words: its value in words}}, with all that was recorded."""
    environment, policy = dict(evaluation.environment), dict(evaluation.policy)
    versions, config = environment.pop("versions", {}), environment.pop("config", {})
    return {
        "Environment": {**_in_words(environment, ENVIRONMENT), **_in_words(config, {})},
        "Protocol and seeds": _in_words(evaluation.protocol, PROTOCOL),
        "Training data": _training_data(policy.pop("trained_on", {})),
        "Policy": _in_words(policy, POLICY),
        "Versions": _in_words(versions, {}),
        "Speed": _in_words(evaluation.time, TIME),
    }


def differing_conditions(evaluations: Sequence[Evaluation | None]) -> dict[str, list[Line]]:
    """Return {group: a line for each condition in which evaluations differ}; no empty groups.

    evaluations: None for a run that was not evaluated, which agrees with all others.
    """
    checkpoints = {
        (str(e.policy.get("run")), str(e.policy.get("checkpoint"))) for e in evaluations if e
    }
    groups = [
        condition_groups(_comparable(e, len(checkpoints) == 1)) if e else None for e in evaluations
    ]
    known = [number for number, of_run in enumerate(groups) if of_run is not None]
    tables: dict[str, list[Line]] = {}
    for group in dict.fromkeys(group for of_run in groups for group in of_run or {}):
        by_run = [(of_run or {}).get(group, {}) for of_run in groups]
        for name in dict.fromkeys(name for values in by_run for name in values):
            texts = [values.get(name, NOT_RECORDED) for values in by_run]
            if len({texts[number] for number in known}) > 1:
                shown = [texts[i] if i in known else "-" for i in range(len(texts))]
                tables.setdefault(group, []).append(Line(name, shown))
    return tables


def _training_data(origins: object) -> dict[str, str]:
    """Write where the data of each store come from, and the versions that recorded them.

    origins: {store: its origin}, as a results.json has it.
    """
    written: dict[str, str] = {}
    for store, origin in origins.items() if isinstance(origins, Mapping) else ():
        source, _, _ = text(origin).rpartition("; versions ")
        written[str(store)] = source or text(origin) or "origin unknown"
        for library, version in recorded_versions(text(origin)).items():
            written[f"{store}, recorded with {library}"] = version
    return written


def _comparable(evaluation: Evaluation, of_one_run: bool) -> Evaluation:
    """Return an evaluation without speed, and without what is another in each run anyway.

    of_one_run: whether all evaluations say that they are of one checkpoint of one run; other
        weights are then news.
    """
    policy = {key: value for key, value in evaluation.policy.items() if key not in OF_EACH_RUN}
    if not of_one_run:
        policy.pop("weights_sha256", None)
    return replace(evaluation, policy=policy, time={})


def _in_words(
    values: object, phrases: Mapping[str, tuple[str, Write]], prefix: str = ""
) -> dict[str, str]:
    """Write keys that have a phrase by it, in the order of the phrases, and then all others.

    Settings within settings are written one by one, after the name of the whole. Files of other
    versions, and damaged ones, may hold any value: what the phrase cannot write stays as it is.
    """
    if not isinstance(values, Mapping):
        return {prefix or "setting": text(values)}
    written: dict[str, str] = {}
    known = [key for key in phrases if key in values]
    for key in [*known, *(key for key in values if key not in phrases)]:
        name, write = phrases.get(key, (label(str(key)), text))
        name = f"{prefix}, {name}" if prefix else name
        if write is text and isinstance(values[key], Mapping):
            written |= _in_words(values[key], {}, name)
            continue
        try:
            written[name] = write(values[key])
        except (TypeError, ValueError, AttributeError):
            written[name] = text(values[key])
    return written
