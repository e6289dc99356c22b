"""The command: what it prints, what it writes, and how it refuses."""

import sys
from pathlib import Path

import pytest

from core.commands.show import main
from core.store.store import EpisodeStore
from tests.factories import make_store


def test_a_store_and_its_meaning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store.zarr")
    assert main([str(store.path)]) == 0
    shown = capsys.readouterr().out
    for expected in (
        f"{store.path}: 6 episodes, {store.frame_count} frames; made for tests",
        "camera wrist: 32 x 32, 10 Hz",
        "camera wrist is stored as jpeg",
        "3 gripper: 1.0 is 1, binary gripper: -1 closed, 1 open",
        "proprioception: p0, p1, p2",
        "proprio p2",
    ):
        assert expected in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["reach", "3", "39", "11", "15", "1"] in rows
    assert ["push", "3", "37", "11", "14", "1"] in rows
    mean = store.statistics["action"].mean[0]
    assert any(
        row[:4] == ["action", "x", "(0.02", "m)"] and row[6] == f"{mean:.4g}" for row in rows
    )


def test_an_empty_place_and_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing.zarr")]) == 1
    assert "no episode store here" in capsys.readouterr().err


def test_an_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store.zarr")
    for commit in (store.path / "commits").glob("*.json"):
        commit.unlink()
    assert main([str(store.path)]) == 0
    assert "0 episodes, 0 frames" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main([str(store.path), "--html", str(page)]) == 1
    assert capsys.readouterr().err == f"error: {store.path}: no episodes to show; import some\n"
    assert not page.exists()


def test_a_page_of_chosen_episodes(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert (
        main([str(store.path), "--html", str(page), "--episodes", "push/1", "reach/0", "push/1"])
        == 0
    )
    assert f"{page}: 2 episodes, " in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.count('class="player episode"') == 2
    assert text.index("push/1, 12 frames, 1.2 s") < text.index("reach/0, 11 frames, 1.1 s")


def test_a_page_is_named_by_its_store(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main([str(store.path), "--html"]) == 0
    assert [path.name for path in Path().iterdir()] == ["store.html"]


def test_an_unknown_episode(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main([str(store.path), "--html", str(page), "--episodes", "reach/0", "pusch/1"]) == 2
    output = capsys.readouterr()
    assert output.err == "error: there is no episode 'pusch/1'; did you mean 'push/1'?\n"
    assert output.out == ""
    assert not page.exists()


def test_episodes_without_a_place_to_show_them(
    store: EpisodeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(store.path), "--episodes", "reach/0"])
    assert "--html and --rerun" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["nowhere/page.html", "file/page.html", "folder"])
def test_a_place_that_cannot_be_written(
    store: EpisodeStore, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main([str(store.path), "--html", str(tmp_path / place)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / place}: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_frame_is_named_and_the_page_stays(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("the page before")
    data = next((store.path / "parts").glob("*/cam/wrist/data/c/0"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert main([str(store.path), "--html", str(page)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {data}: frame ")
    assert page.read_text() == "the page before"


def test_rerun_is_an_extra(
    store: EpisodeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main([str(store.path), "--rerun", str(tmp_path / "out.rrd")]) == 2
    output = capsys.readouterr()
    assert "pip install 'joinery[rerun]'" in output.err
    assert output.out == ""
