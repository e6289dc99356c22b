"""The section [start]: which weights begin anew, and keys that have no effect."""

from pathlib import Path

import pytest

from core.recipe.checking import fill
from core.recipe.start import StartConfig


@pytest.mark.parametrize(
    ("name", "anew"),
    [
        ("policy_head", True),
        ("policy_head.pose.2", True),
        ("policy_header", False),
        ("backbone.norm", True),
        ("backbone.norm.weight", True),
        ("backbone", False),
    ],
)
def test_names_begin_anew_by_whole_words(name: str, anew: bool) -> None:
    start = StartConfig(Path("runs/a"), anew=("policy_head", "backbone.norm"))
    assert start.begins_anew(name) is anew
    assert StartConfig().begins_anew(name), "without a run, everything does"


def test_keys_without_a_run_are_refused() -> None:
    mistakes: list[str] = []
    assert fill(StartConfig, {"anew": ["backbone"]}, "start", mistakes) is None
    message = "checkpoint, averages and anew have no effect without run; name the run, or drop them"
    assert mistakes == [f"start: {message}"]
