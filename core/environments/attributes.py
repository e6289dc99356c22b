"""Checks an environment's attributes once, when it is built.

Everything later relies on them: plans, messages, names of episodes, shapes of observations.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np

from core.environments.environment import Task
from core.episodes.episode import (
    ActionConvention,
    Camera,
    Feature,
    Frame,
    Mode,
    Rotation,
    StoreInfo,
)
from core.errors import did_you_mean


def attribute_mistakes(environment: Any) -> Iterator[str]:
    """Yield a line for each attribute that is not what `Environment` says."""
    info, tasks, versions = environment.info, environment.tasks, environment.versions
    if isinstance(info, StoreInfo):
        yield from _info_mistakes(info)
    else:
        yield f"self.info is {_brief(info)}; give a StoreInfo"
    if not isinstance(tasks, Mapping) or not tasks:
        yield f"self.tasks is {_brief(tasks)}; give {{name: Task}}, with at least one task"
    else:
        for name, task in tasks.items():
            yield from _task_mistakes(name, task)
        if not any(getattr(task, "by_default", True) for task in tasks.values()):
            yield "self.tasks has no task by default; leave out by_default=False of one at least"
    if not _is_mapping_of(versions, str):
        yield f"self.versions is {_brief(versions)}; give {{library: version}}, two texts"
    if not isinstance(environment.replayable, bool):
        yield f"self.replayable is {_brief(environment.replayable)}; give True or False"


def _info_mistakes(info: Any) -> Iterator[str]:
    """Yield a line for each field of another type; StoreInfo itself checks values alone."""
    for name, values, kind in (
        ("cameras", info.cameras, Camera),
        ("features", info.features, Feature),
    ):
        if not _is_mapping_of(values, kind):
            yield f"info.{name} is {_brief(values)}; give {{name: {kind.__name__}}}"
    for key in ("proprio", "proprio_units"):
        if not _is_texts(value := getattr(info, key)):
            yield f"info.{key} is {_brief(value)}; give a tuple of texts"
    if isinstance(info.action, ActionConvention):
        yield from _action_mistakes(info.action)
    else:
        yield f"info.action is {_brief(info.action)}; give an ActionConvention"


def _action_mistakes(action: Any) -> Iterator[str]:
    for key in ("names", "units"):
        if not _is_texts(value := getattr(action, key)):
            yield f"info.action.{key} is {_brief(value)}; give a tuple of texts"
    for key, known in (("mode", Mode), ("frame", Frame), ("rotation", Rotation)):
        if (value := getattr(action, key)) not in get_args(known):
            suggestion = did_you_mean(str(value), get_args(known))
            yield f"info.action.{key} is {value!r}{suggestion}"


def _task_mistakes(name: Any, task: Any) -> Iterator[str]:
    where = f"tasks[{name!r}]"
    if not isinstance(task, Task):
        yield f"{where} is {_brief(task)}; give a Task"
    else:
        yield from _field_mistakes(where, name, task)


def _field_mistakes(where: str, name: Any, task: Any) -> Iterator[str]:
    if not isinstance(name, str) or task.name != name:
        yield f"{where}.name is {task.name!r}; give both the same text"
    steps = task.max_steps
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
        yield f"{where}.max_steps is {steps!r}; give a whole number above zero"
    for field in ("instructions", "held_out"):
        phrasings = getattr(task, field)
        if not isinstance(phrasings, tuple) or not all(map(_is_readable, phrasings)):
            right = 'give a tuple of texts, ("open it",) for example'
            yield f"{where}.{field} is {phrasings!r}; {right}"
    if not task.instructions:
        yield f"{where}.instructions is empty; give at least one"
    if not isinstance(task.tier, str):
        yield f"{where}.tier is {_brief(task.tier)}; give a text"
    for field in ("by_default", "has_success"):
        if not isinstance(value := getattr(task, field), bool):
            yield f"{where}.{field} is {_brief(value)}; give True or False"


def _is_texts(values: Any) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)


def _is_mapping_of(values: Any, kind: type) -> bool:
    return isinstance(values, Mapping) and all(
        isinstance(name, str) and isinstance(value, kind) for name, value in values.items()
    )


def _is_readable(text: Any) -> bool:
    """Whether a text is Unicode and holds a character that can be read, as a store demands."""
    if not isinstance(text, str) or not any(c.isprintable() and not c.isspace() for c in text):
        return False
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _brief(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}: {value!r}"[:200]
