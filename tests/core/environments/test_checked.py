import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from core.environments.checked import step
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
