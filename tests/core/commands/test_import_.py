"""The command: what it shows before and after, and its mistakes in one line."""

from pathlib import Path

import numpy as np
import pytest

from core.commands.edit import main as edit
from core.commands.import_ import main
from core.store.store import EpisodeStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three episodes as .npz files."""
    random = np.random.default_rng(0)
    (folder := tmp_path / "episodes").mkdir()
    for number in range(3):
        np.savez(
            folder / f"e{number}.npz",
            top=random.integers(0, 255, (5, 16, 24, 3), dtype=np.uint8),
            action=random.normal(size=(5, 2)),
            angles=random.normal(size=(5, 3)),
            instruction="fold the towel",
        )
    return folder


def test_the_plan_comes_before_the_work_and_the_numbers_after(folder, tmp_path, capsys):
    mapping = tmp_path / "mapping.toml"
    mapping.write_text("""
        proprio = ["angles"]
        [meaning]
        mode = "delta"
        names = ["x", "grip"]
        [[meaning.grippers]]
        dimension = 1
        kind = "binary"
        closed = 0
        open = 1
    """)
    out = tmp_path / "out.zarr"
    assert (
        main(["npz", str(folder), str(out), "fps=5", "--mapping", str(mapping), "--jobs", "1"]) == 0
    )
    shown = capsys.readouterr()
    plan, _, summary = shown.out.partition("3 episodes imported")
    for expected in (
        "3 episodes\n",
        "top: 16 x 24, 5 Hz",
        "delta",
        "1 grip: 1.0 is 1, binary gripper: 0 closed, 1 open",
    ):
        assert expected in plan
    assert "angles_0, angles_1, angles_2" in plan
    for expected in (
        "3 episodes, 15 frames",
        "camera top: ",
        "KB a frame",
        "action grip",
        "proprio angles_2",
        "99 %",
    ):
        assert expected in summary
    assert "importing 3/3 episodes" in shown.err
    assert EpisodeStore(out).info.action.grippers[0].open == 1.0


def test_an_instruction_of_a_task_that_no_episode_has(folder, tmp_path, capsys):
    out, mapping = tmp_path / "out.zarr", tmp_path / "mapping.toml"
    mapping.write_text("[tasks]\nfolding = ['fold teh towel', 'wave']\nwaving = ['wave goodbye']")
    words = ["npz", str(folder), str(out), "fps=5", "--jobs", "1", "--mapping", str(mapping)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "suspicious: tasks.folding: no episode is told 'fold teh towel'; did you mean 'fold the "
        "towel'?" in shown
    )
    assert "suspicious: tasks.waving: no episode is told 'wave goodbye'; known: fold" in shown
    # the way out that it names
    assert f"joinery edit {out} tasks=" in shown
    assert edit([str(out), "tasks={folding = ['fold the towel']}"]) == 0
    assert EpisodeStore(out).task_name(0) == "folding"
    mapping.write_text("[tasks]\nfolding = ['fold the towel']")
    assert main(words) == 0
    assert "suspicious: tasks" not in capsys.readouterr().out


def test_a_meaning_that_was_forgotten_is_corrected_without_a_new_import(folder, tmp_path, capsys):
    out, mapping = tmp_path / "out.zarr", tmp_path / "mapping.toml"
    words = ["npz", str(folder), str(out), "fps=5", "--jobs", "1"]
    assert main(words) == 0
    mapping.write_text("[meaning]\nscale = [0.5, 1.0]")
    capsys.readouterr()
    assert main([*words, "--mapping", str(mapping)]) == 1
    error = capsys.readouterr().err
    assert "action.scale: (1.0, 1.0) there, (0.5, 1.0) here; correct it with joinery edit" in error
    assert edit([str(out), "--mapping", str(mapping)]) == 0
    assert EpisodeStore(out).info.action.scale == (0.5, 1.0)
    assert main([*words, "--mapping", str(mapping)]) == 0
    assert "0 episodes imported" in capsys.readouterr().out


def test_a_second_dataset_is_called_by_its_folder(folder, tmp_path, capsys):
    """Most formats number episodes, so those of two days have the same names."""
    out, tuesday = tmp_path / "all.zarr", tmp_path / "tuesday"
    tuesday.mkdir()
    for number in range(3):
        arrays = dict(np.load(folder / f"e{number}.npz"))
        np.savez(tuesday / f"e{number}.npz", **{**arrays, "action": arrays["action"] + 1})
    for day in (folder, tuesday):
        assert main(["npz", str(day), str(out), "fps=5", "--jobs", "1"]) == 0
    assert "so these are called tuesday/..." in capsys.readouterr().out
    store = EpisodeStore(out)
    names = [store.episode_id(episode) for episode in range(len(store))]
    assert names == ["e0", "e1", "e2", "tuesday/e0", "tuesday/e1", "tuesday/e2"]


def test_bad_episodes_are_skipped_when_asked_and_listed(folder, tmp_path, capsys):
    (folder / "e1.npz").write_bytes((folder / "e1.npz").read_bytes()[:300])
    out = str(tmp_path / "out.zarr")
    assert main(["npz", str(folder), out, "fps=5", "--jobs", "1"]) == 1
    assert "e1.npz: damaged" in capsys.readouterr().err
    assert len(EpisodeStore(Path(out))) == 1
    assert main(["npz", str(folder), out, "fps=5", "--jobs", "1", "--skip-bad"]) == 0
    shown = capsys.readouterr().out
    assert "1 episodes imported; 2 episodes" in shown
    assert "skipped 1:\n  e1: " in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the mapping: No such file"),
        ("[cameras", "not valid TOML"),
        ("x = " + "[" * 3000 + "]" * 3000, "not valid TOML"),
        (
            "meaning.mode = 'sideways'",
            "npz.meaning.mode: expected 'absolute' or 'delta', got 'sideways'",
        ),
        ("meaning.scale = [1.0]", "meaning: scale has 1 entries for the 2 dimensions"),
        ("cameras.top = 'front'", "there is no array 'front'"),
        ("colour = 1", "npz.colour: unknown key"),
    ],
)
def test_mistakes_in_a_mapping(folder, tmp_path, capsys, text, message):
    mapping = tmp_path / "mapping.toml"
    if text is not None:
        mapping.write_text(text)
    assert main(
        ["npz", str(folder), str(tmp_path / "out.zarr"), "fps=5", "--mapping", str(mapping)]
    ) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["metaworld"], 2, "no dataset is called 'metaworld'; did you mean 'metaworld_npz'?"),
        (["metaworld_npz", "cam=top"], 2, "unknown key"),
        (["metaworld_npz", "camera"], 2, "expected key=value"),
        (["metaworld_npz"], 1, "holds no .npz files"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    name, *settings = arguments
    assert main([name, str(tmp_path), str(tmp_path / "a.zarr"), *settings]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
