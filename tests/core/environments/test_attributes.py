from dataclasses import replace
from typing import Any

import pytest

from core.environments.environment import Task
from core.environments.workers import EnvironmentSpec
from core.episodes.episode import StoreInfo
from core.errors import DataError
from tests.toy_environment import MAX_STEPS, ToyConfig, ToyEnvironment, toy_info, toy_tasks


class Changed(ToyEnvironment):
    """The toy with another value of one attribute, which a test sets."""

    name, value = "versions", {"toy": "1"}

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        setattr(self, self.name, self.value)


def tasks_with(**changes: Any) -> dict[Any, Any]:
    return {"reach_red": replace(toy_tasks()["reach_red"], **changes)}


def with_action(**changes: Any) -> StoreInfo:
    return replace(toy_info(), action=replace(toy_info().action, **changes))


def test_sound_attributes_are_taken() -> None:
    environment = EnvironmentSpec("toy", Changed, ToyConfig()).make()
    assert environment.tasks["reach_red"].max_steps == MAX_STEPS


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("info", None, "self.info is None; give a StoreInfo"),
        ("info", replace(toy_info(), cameras=["front"]), r"info.cameras is a list: \['front'\]; "),
        ("info", replace(toy_info(), action="delta"), "info.action is a str: 'delta'; give an Act"),
        ("info", replace(toy_info(), proprio=(1, 2)), "info.proprio is a tuple: .* tuple of texts"),
        ("info", with_action(names=("x", "y", 3)), "info.action.names is a tuple: .* of texts"),
        ("info", with_action(units=("m", "m", None)), "info.action.units is a tuple: .* of texts"),
        ("info", with_action(mode="relative"), "info.action.mode is 'relative'; known: absolute"),
        ("info", with_action(frame="wrld"), r"info.action.frame is 'wrld'; did you mean 'world'\?"),
        ("info", replace(toy_info(), features={"f": 1}), r"info.features is a dict: \{'f': 1\}; "),
        ("tasks", {}, r"self.tasks is a dict: \{\}; give \{name: Task\}, with at least one task"),
        ("tasks", ["reach_red"], r"self.tasks is a list: \['reach_red'\]; give \{name: Task\}"),
        ("tasks", {"reach_red": "reach"}, r"tasks\['reach_red'\] is a str: 'reach'; give a Task"),
        ("tasks", tasks_with(name="red"), r"tasks\['reach_red'\].name is 'red'; give both the sam"),
        ("tasks", tasks_with(max_steps=0), "max_steps is 0; give a whole number above zero"),
        ("tasks", tasks_with(max_steps=True), "max_steps is True; give a whole number above zero"),
        ("tasks", tasks_with(max_steps=9.5), "max_steps is 9.5; give a whole number above zero"),
        ("tasks", tasks_with(instructions=()), "instructions is empty; give at least one"),
        ("tasks", tasks_with(instructions="reach it"), "instructions is 'reach it'; give a tuple"),
        (
            "tasks",
            tasks_with(instructions=(" \n",)),
            r"instructions is \(.*\); give a tuple of",
        ),
        ("tasks", tasks_with(held_out=("\ud800x",)), r"held_out is \(.*\); give a tuple of texts"),
        ("tasks", tasks_with(tier=None), "tier is None; give a text"),
        ("tasks", tasks_with(by_default=1), "by_default is a int: 1; give True or False"),
        ("tasks", tasks_with(by_default=False), "self.tasks has no task by default; leave out"),
        ("versions", {"toy": 1.0}, r"self.versions is a dict: \{'toy': 1.0\}; give \{library: ver"),
        ("replayable", "no", "self.replayable is a str: 'no'; give True or False"),
    ],
)
def test_another_value_is_refused_in_one_line_with_the_place(
    name: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Changed, "name", name)
    monkeypatch.setattr(Changed, "value", value)
    with pytest.raises(DataError, match=rf"^environment 'toy': .*{message}") as caught:
        EnvironmentSpec("toy", Changed, ToyConfig()).make()
    assert "\n" not in str(caught.value)
    assert "test_attributes.py:" in str(caught.value)


def test_a_task_is_named_by_a_text() -> None:
    tasks = {3: Task(3, ("reach",), 5)}  # type: ignore[arg-type,dict-item]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Changed, "name", "tasks")
        patch.setattr(Changed, "value", tasks)
        with pytest.raises(DataError, match=r"tasks\[3\].name is 3; give both the same text"):
            EnvironmentSpec("toy", Changed, ToyConfig()).make()
