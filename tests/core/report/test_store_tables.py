"""What is printed of a store."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from core.report.store_inspection import inspect
from core.report.store_tables import show_info, show_store
from core.store.store import EpisodeStore
from tests.factories import FEATURES, make_info


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=200, soft_wrap=True)


def text_of(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_description_is_printed_line_by_line(console: Console) -> None:
    info = make_info(features={"force": FEATURES["force"]})
    show_info(replace(info, proprio=()), console)
    assert text_of(console).splitlines() == [
        "  camera front: 32 x 32, 10 Hz",
        "  camera wrist: 32 x 32, 10 Hz",
        f"  feature force: {FEATURES['force']}",
        "  actions: delta, frame world, rotation none, 10 Hz",
        "    0 x: 1.0 is 0.02 m",
        "    1 y: 1.0 is 0.02 m",
        "    2 z: 1.0 is 0.02 m",
        "    3 gripper: 1.0 is 1, binary gripper: -1 closed, 1 open",
        "  proprioception: none",
    ]


def test_units_stand_beside_the_numbers(console: Console) -> None:
    action = replace(make_info().action, units=("px", "rad", "", "1"))
    info = replace(make_info(), action=action, proprio_units=("rad", "1", "N"))
    show_info(info, console)
    lines = text_of(console).splitlines()
    assert [line.partition(": ")[2] for line in lines[3:6]] == [
        "1.0 is 0.02 px",
        "1.0 is 0.02 rad",
        "1.0 is 0.02 m",
    ]
    assert lines[-1] == "  proprioception: p0 (rad), p1, p2 (N)"


def test_what_is_assumed_is_marked_and_explained(console: Console) -> None:
    assumed = {"frame": "nobody wrote it down", "scale": "nobody wrote it down"}
    show_info(replace(make_info(), assumed=assumed), console)
    text = text_of(console)
    assert "actions: delta, frame world (assumed), rotation none, 10 Hz" in text
    assert "0 x: 1.0 is 0.02 m (assumed)" in text
    assert "assumed: frame, scale (nobody wrote it down)" in text


def test_square_brackets_in_names_are_no_markup(console: Console) -> None:
    show_info(replace(make_info(), proprio=("[red]p[/red]",)), console)
    assert "proprioception: [red]p[/red]" in text_of(console)


def test_suspicions_end_the_text(store: EpisodeStore, console: Console) -> None:
    inspection = replace(inspect(store), suspicions=("the robot stood still",))
    show_store(store, inspection, console)
    assert text_of(console).splitlines()[-1] == "suspicious: the robot stood still"
