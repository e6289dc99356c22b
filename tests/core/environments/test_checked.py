import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from core.environments.checked import (
    begin_chain,
    expert_action,
    observe,
    proceed,
    reset,
    step,
)
from core.environments.environment import StepResult
from core.errors import DataError
from tests.toy_environment import ToyConfig, ToyEnvironment

ACTION = np.zeros(3, np.float32)


class Returning(ToyEnvironment):
    """Returns what it was given from every step."""

    def __init__(self, returned: object) -> None:
        super().__init__(ToyConfig())
        self.returned = returned

    def step(self, action):
        return self.returned


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (True, StepResult(success=True)),
        (np.False_, StepResult()),
        (StepResult(ended=True), StepResult(ended=True)),
        (StepResult(np.True_, False, np.float32(0.5)), StepResult(success=True, score=0.5)),
        (StepResult(score=-3), StepResult(score=-3.0)),
        (StepResult(metrics={"effort": np.float32(2)}), StepResult(metrics={"effort": 2.0})),
    ],
)
def test_a_bool_or_a_step_result_says_what_a_step_has_come_to(returned, expected):
    result = step(Returning(returned), ACTION)
    assert result == expected
    assert type(result.success) is type(result.ended) is bool
    assert result.score is None or type(result.score) is float


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None; it must return True when the task is done, otherwise False, or a "),
        (1.0, "returned a float; it must return True"),
        ("done", "returned a str; it must return True"),
        (
            (ACTION, 0.5, True, False, {}),
            r"returned a tuple; Gymnasium's observation, reward, terminated, truncated and info "
            r"become StepResult\(success=\.\.\., ended=terminated or truncated, score=reward\)",
        ),
        (StepResult(success=1), r"returned StepResult\(success=1\); give success as True or False"),
        (StepResult(ended=None), r"returned StepResult\(ended=None\); give ended as True or False"),
        (StepResult(score=np.nan), r"StepResult\(score=nan\); give one finite number, or None"),
        (StepResult(score=-np.inf), r"StepResult\(score=-inf\); give one finite number, or None"),
        (StepResult(score=True), r"StepResult\(score=True\); give one finite number, or None"),
        (StepResult(score=np.ones(2)), r"StepResult\(score=array.*; give one finite number"),
        (StepResult(metrics=None), r"StepResult\(metrics=None\); give a dict {name: one finite"),
        (StepResult(metrics={"a": np.inf}), r"StepResult\(metrics={'a': inf}\); give a dict"),
        (StepResult(metrics={1: 2.0}), r"StepResult\(metrics={1: 2.0}\); give a dict {name: one"),
        (StepResult(score="0.5"), r"StepResult\(score='0.5'\); give one finite number, or None"),
    ],
)
def test_anything_else_is_refused_in_one_line_with_the_place(returned, message):
    with pytest.raises(
        DataError, match=rf"Returning\.step .*{message}.*, at .*test_checked"
    ) as info:
        step(Returning(returned), ACTION)
    assert "\n" not in str(info.value)


def test_a_step_result_has_no_truth_value():
    with pytest.raises(TypeError, match="read its success or its done"):
        bool(StepResult())


VALUES = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(), st.lists(st.booleans()), st.binary(),
    st.tuples(*[st.floats()] * 5), st.dictionaries(st.text(), st.booleans()),
)  # fmt: skip


@settings(deadline=None)
@given(VALUES, VALUES, VALUES)
def test_no_value_of_another_type_becomes_a_success(success, ended, score):
    with pytest.raises(DataError):
        step(Returning(success), ACTION)
    for returned in (StepResult(success, False, score), StepResult(True, ended, score)):
        with pytest.raises(DataError):
            step(Returning(returned), ACTION)


# ------------------------------------------------------------------------------- the other methods


class Answering(ToyEnvironment):
    """Answers one method as a test wishes; remembers the actions that it was given."""

    def __init__(self, method: str = "", answer: object = None) -> None:
        super().__init__(ToyConfig())
        self.actions: list[np.ndarray] = []
        if method:
            setattr(self, method, lambda *_: answer)

    def step(self, action):
        self.actions.append(action)
        return super().step(action)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.float32([0, np.nan, 1]), r"^an action that is not finite: \[ 0. nan  1.\]"),
        (np.zeros(2, np.float32), r"^an action of shape \(2,\): expected \(3,\), x, y, gripper"),
        (np.zeros((1, 3), np.float32), r"^an action of shape \(1, 3\): expected"),
    ],
)
def test_an_action_that_does_not_fit_never_reaches_the_environment(action, message):
    environment = Answering()
    environment.reset("reach_red", 0)
    with pytest.raises(DataError, match=message):
        step(environment, action)
    assert not environment.actions


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("reset", lambda environment: reset(environment, "reach_red", 0)),
        ("proceed", lambda environment: proceed(environment, "reach_red")),
    ],
)
def test_beginning_returns_nothing_and_nothing_is_done_yet(method, call):
    call(Answering())
    call(Answering("is_done", np.False_))
    with pytest.raises(DataError, match=r"returned a tuple; it must return nothing: observe"):
        call(Answering(method, (np.zeros(3), {})))
    with pytest.raises(DataError, match=r"^the task was done before the first step"):
        call(Answering("is_done", True))
    with pytest.raises(DataError, match="returned a int; it must return True, False, or None"):
        call(Answering("is_done", 1))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("reach_red", "returned a str; it must return the names of the chain's tasks"),
        ([], "returned a list; it must return the names"),
        (None, "returned None; it must return the names"),
        (["reach_red", "fly"], "returned a chain with 'fly', which is none of `tasks`"),
        ([["reach_red"]], r"returned a chain with \['reach_red'\], which is none of `tasks`"),
    ],
)
def test_a_chain_is_of_names_of_tasks(names, message):
    with pytest.raises(DataError, match=message):
        begin_chain(Answering("begin_chain", names), 0)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (None, "returned None; it must return one finite number for each of x, y, gripper"),
        ([0, "a"], "returned a list; it must return one finite number"),
        (np.zeros(4), r"returned an action of shape \(4,\) instead of \(3,\)"),
        (np.array([True] * 3), r"returned an array bool \(3,\); it must return one finite"),
        ([0, 1e39, 0], r"returned \[0.0, inf, 0.0\]; it must return one finite number"),
    ],
)
def test_an_expert_gives_one_finite_number_for_each_dimension(action, message):
    with pytest.raises(DataError, match=message):
        expert_action(Answering("expert", action))
    assert expert_action(Answering("expert", [1, 0.5, -1])).dtype == np.float32


def test_an_observation_that_does_not_fit_is_one_line_with_the_place():
    with pytest.raises(DataError, match="returned what does not fit: it is nothing; give an Obs"):
        observe(Answering("observe"))
    environment = Answering()
    environment.reset("reach_red", 0)
    assert observe(environment).proprio.dtype == np.float32
