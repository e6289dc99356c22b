"""Corrections of a store: every reader applies them, and what was recorded stays as it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.commands.edit import main
from core.episodes.correction import ConventionOverride
from core.errors import ConfigError, DataError
from core.store.edits import Edit, Words, add_edit
from core.store.layout import Task
from core.store.store import EpisodeStore
from core.store.verify import verify
from core.store.writer import StoreWriter
from tests.factories import contents, make_episodes, make_info, make_store

ASSUMED = {"mode": "nobody knows", "frame": "nobody knows", "scale": "nobody knows"}


def edit(path: Path, change: Edit) -> EpisodeStore:
    store = EpisodeStore(path)
    words = [Task(*store.tasks[number]) for number in store.task.tolist()]
    add_edit(path, change, words, [store.episode_id(e) for e in range(len(store))])
    return EpisodeStore(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(make_store(tmp_path / "a.zarr", info=replace(make_info(), assumed=ASSUMED)).path)


def test_meaning_and_names_are_corrected_and_numbers_stay(path: Path) -> None:
    before = EpisodeStore(path)
    scale = (0.01, 0.01, 0.01, 1.0)
    change = Edit(
        meaning=ConventionOverride(mode="absolute", scale=scale),
        action_names={"forward": "x"},
        proprio_names={"height": "p2"},
        confirm=("frame",),
        origin="our lab",
    )
    after = edit(path, change)
    assert (after.info.action.mode, after.info.action.scale) == ("absolute", scale)
    assert after.info.action.names == ("forward", "y", "z", "gripper")
    assert after.info.proprio == ("p0", "p1", "height")
    assert (after.info.assumed, after.info.origin) == ({}, "our lab")
    assert before.info.assumed == ASSUMED
    length = int(before.length[0])
    np.testing.assert_array_equal(after.actions(0, 0, length), before.actions(0, 0, length))


def test_units_are_corrected_by_name_and_by_dimension(path: Path) -> None:
    units = ("m", "m", "m", "1")
    after = edit(path, Edit(meaning=ConventionOverride(units=units), proprio_units={"p1": "N"}))
    assert (after.info.action.units, after.info.proprio_units) == (units, ("", "N", ""))
    names = {"force": "p1"}
    again = edit(path, Edit(proprio_names=names, proprio_units={"p0": "rad"}))
    assert (again.info.proprio, again.info.proprio_units) == (
        ("p0", "force", "p2"),
        ("rad", "N", ""),
    )
    with pytest.raises(ConfigError, match="proprio_units: no number is called 'p1'"):
        edit(path, Edit(proprio_units={"p1": "m"}))
    with pytest.raises(DataError, match="meaning: units has 1 entries for 4 numbers"):
        edit(path, Edit(meaning=ConventionOverride(units=("m",))))


def test_the_control_rate_follows_the_frame_rate_if_they_were_the_same(path: Path) -> None:
    assert edit(path, Edit(fps=15.0)).info.action.rate == 15.0
    slow = edit(path, Edit(meaning=ConventionOverride(rate=5.0)))
    assert (slow.info.fps, slow.info.action.rate) == (15.0, 5.0)
    assert edit(path, Edit(fps=30.0)).info.action.rate == 5.0
    with pytest.raises(DataError, match=r"edit: .*must be finite"):
        edit(path, Edit(fps=-1.0))


def test_instructions_and_tasks_are_corrected(path: Path) -> None:
    name = EpisodeStore(path).episode_id(5)
    after = edit(
        path,
        Edit(
            instructions={"push the puck": "push the red puck"},
            tasks={"pushing": ("push the red puck",)},
            episodes={name: Words(instruction="leave it alone", task="waiting")},
        ),
    )
    told = [(after.task_name(e), after.instruction(e)) for e in range(len(after))]
    assert told[:5] == [("reach", "reach the red cube"), ("pushing", "push the red puck")] * 2 + [
        ("reach", "reach the red cube")
    ]
    assert told[5] == ("waiting", "leave it alone")


def test_later_edits_build_on_earlier_ones(path: Path) -> None:
    edit(path, Edit(instructions={"push the puck": "shove it"}, action_names={"a": "x"}))
    after = edit(path, Edit(instructions={"shove it": "hit it"}, action_names={"b": "a"}))
    assert after.instruction(1) == "hit it"
    assert after.info.action.names[0] == "b"
    assert [dated.edit.action_names for dated in after.edits] == [{"a": "x"}, {"b": "a"}]
    assert all(dated.time.endswith("+00:00") for dated in after.edits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            Edit(instructions={"push the pug": "a"}),
            "no episode is told 'push the pug'; did",
        ),
        (Edit(tasks={"a": ("b",)}), "tasks: no episode is told 'b'"),
        (
            Edit(tasks={"a": ("push the puck",), "b": ("push the puck",)}),
            "tasks: 'push the puck' belongs to several; drop it",
        ),
        (Edit(episodes={"nobody": Words("a")}), "episodes: there is no episode 'nobody'"),
        (Edit(action_names={"a": "xx"}), "action_names: no number is called 'xx'"),
        (
            Edit(confirm=("rotation",)),
            "confirm: 'rotation' is not assumed; known: frame",
        ),
        (Edit(instructions={"push the puck": " "}), "' ': is empty"),
    ],
)
def test_what_the_store_does_not_have_is_refused(path: Path, change: Edit, message: str) -> None:
    files = sorted(path.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        edit(path, change)
    with pytest.raises(DataError, match="meaning: scale has 1 entries"):
        edit(path, Edit(meaning=ConventionOverride(scale=(1.0,))))
    assert sorted(path.rglob("*")) == files


def test_what_was_recorded_stays_and_older_readers_refuse(path: Path) -> None:
    files = {
        file: file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != "zarr.json"
    }
    edit(path, Edit(origin="our lab"))
    assert all(file.read_bytes() == content for file, content in files.items())
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    assert attributes["min_reader_version"] == 3
    assert verify(path, 1) == []
    (file,) = (path / "edits").iterdir()
    file.write_text(file.read_text().replace("our lab", "their lab"))
    with pytest.raises(DataError, match=r"00000000.json: edit is unreadable \(it does not match"):
        EpisodeStore(path)


@pytest.mark.parametrize("content", ["[]", "{}", "", '{"content": {}, "crc32c": 1}'])
def test_a_damaged_edit_is_an_error_in_one_line(path: Path, content: str) -> None:
    edit(path, Edit(origin="our lab"))
    (path / "edits" / "00000000.json").write_text(content)
    with pytest.raises(DataError, match=r"00000000.json: edit is unreadable .*; restore the file"):
        EpisodeStore(path)


def test_a_missing_edit_is_noticed(path: Path) -> None:
    for origin in ("our lab", "their lab"):
        edit(path, Edit(origin=origin))
    (path / "edits" / "00000000.json").unlink()
    with pytest.raises(DataError, match=r"00000000.json: missing, though 00000001.json exists"):
        EpisodeStore(path)


def test_episodes_can_be_added_to_an_edited_store(path: Path) -> None:
    edit(path, Edit(meaning=ConventionOverride(mode="absolute")))
    with pytest.raises(DataError, match="the store disagrees"):
        StoreWriter(path, make_info())
    info = replace(make_info(), action=replace(make_info().action, mode="absolute"))
    with StoreWriter(path, info) as writer:
        writer.append(replace(next(iter(make_episodes(1, info))), id="new"))
    assert len(contents(path)) == 7


def test_the_command_corrects_and_shows(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(path), "meaning={mode = 'absolute'}", "confirm=['frame']"]) == 0
    out = capsys.readouterr().out
    assert "corrections so far: 1" in out
    assert "actions: absolute, frame world, rotation none, 10 Hz" in out
    assert "assumed: scale (nobody knows)" in out
    assert main([str(path)]) == 0
    assert "meaning = {'mode': 'absolute'}; confirm = ['frame']" in capsys.readouterr().out
    assert main([str(path), "mode=absolute"]) == 2
    assert "edit.mode: unknown key" in capsys.readouterr().err
