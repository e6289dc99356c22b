"""A source's description: how it is made, corrected, written and read back."""

import json
from dataclasses import replace
from typing import Any

import pytest

from core.episodes.correction import ConventionOverride, override_convention
from core.episodes.episode import Gripper
from core.errors import DataError
from core.formats.info import dump_info, load_info, source_info
from tests.factories import make_info

CONVENTION = make_info().action


def test_an_override_replaces_what_it_names_and_nothing_else() -> None:
    assert override_convention(CONVENTION, None) == CONVENTION
    grip = Gripper(3, "continuous", closed=0.0, open=0.08)
    corrected = override_convention(
        CONVENTION, ConventionOverride(mode="absolute", grippers=(grip,))
    )
    assert (corrected.mode, corrected.grippers, corrected.scale) == (
        "absolute",
        (grip,),
        CONVENTION.scale,
    )
    with pytest.raises(DataError, match="meaning: scale has 1 entries"):
        override_convention(CONVENTION, ConventionOverride(scale=(1.0,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": {}}, "here: holds no pictures"),
        ({"fps": 0.0}, "here: fps 0.0 must be finite"),
        ({"cameras": {"top": (-1, 4)}}, "here: a frame of -1 x 4 pixels"),
        ({"cameras": {"top": (4,)}}, "here: not enough values"),
    ],
)
def test_a_source_that_describes_no_episodes(changes: dict[str, object], message: str) -> None:
    good = {
        "fps": 5.0,
        "cameras": {"top": (4, 4)},
        "action": CONVENTION,
        "proprio": ["x"],
        "origin": "here",
    }
    assert source_info(**good).proprio == ("x",)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        source_info(**{**good, **changes})  # type: ignore[arg-type]


def test_a_description_comes_back_exactly() -> None:
    info = make_info()
    action = replace(info.action, scale=(0.1, 1 / 3, 1e-30, 1.0), rate=29.97)
    info = replace(info, fps=29.97, action=action, proprio=("a", "ä\0\n", ""), origin='"elsewhere"')
    assert load_info(json.loads(json.dumps(dump_info(info))), "here") == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "here: of version 2, known is 1; upgrade joinery"),
        ({"version": "one"}, "here: damaged"),
        ({"fps": "10"}, "here: damaged .*fps"),
        ({"fps": -1.0}, "here: damaged .*must be finite and positive"),
        ({"cameras": {"front": {"height": 0, "width": 3}}}, "here: damaged"),
        ({"action": None}, "here: damaged"),
    ],
)
def test_a_wrong_description_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_info(dump_info(make_info()) | change, "here")


@pytest.mark.parametrize("plain", [None, [], 1, "text", {}])
def test_other_data_than_a_description_is_refused(plain: Any) -> None:
    with pytest.raises(DataError, match="here: damaged"):
        load_info(plain, "here")
