"""The command: what it shows, and its mistakes in one line."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.commands.write import main
from core.registry import catalogue as plugins
from tests.factories import make_store

PAGE = Path(__file__).parents[3] / "docs" / "exporting.md"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter that the page shows, installed."""
    module = SimpleNamespace()
    exec(PAGE.read_text(encoding="utf-8").split("```python\n")[-1].split("```")[0], module.__dict__)
    dist = SimpleNamespace(name="joinery-lines", version="1.0")
    entry = SimpleNamespace(name="lines", value="lines", dist=dist, load=lambda: module)
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [entry])
    plugins.load_plugins.cache_clear()
    yield
    plugins.load_plugins.cache_clear()


def test_the_exporter_of_the_page(
    lines: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "a.zarr", 3)
    out = tmp_path / "a.jsonl"
    assert main(["lines", str(tmp_path / "a.zarr"), str(out), "decimals=2"]) == 0
    assert len(out.read_text().splitlines()) == 3
    assert out.read_text().startswith('{"instruction": "reach the red cube", "actions": [[')
    shown = capsys.readouterr()
    for expected in (
        "a.zarr: 3 episodes\n",
        "front: 32 x 32, 10 Hz",
        "3 gripper: 1.0 is 1, binary gripper: -1 closed",
    ):
        assert expected in shown.out
    assert (
        shown.out.splitlines()[-1]
        == f"{out}: 3 episodes, 36 frames, {out.stat().st_size / 1e6:.1f} MB"
    )
    assert "writing 3/3 episodes" in shown.err
    assert sys.modules.get("lines") is None


def test_a_killed_export_leaves_nothing_where_one_would_look(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", 40, segment_bytes=2**26)
    out = tmp_path / "out"
    words = [
        "-m",
        "core.commands.write",
        "lerobot",
        str(tmp_path / "a.zarr"),
        str(out),
        "images=image",
    ]
    with subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as writing:
        assert writing.stderr is not None
        assert writing.stderr.readline().startswith("writing ")
        writing.kill()
    assert not out.exists()
    assert len([*tmp_path.glob(".*.out")]) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["lerobto"], 2, "format: no exporter is called 'lerobto'; did you mean 'lerobot'?"),
        (["npz"], 2, "no exporter is called 'npz'"),
        (["lerobot", "image=png"], 2, "lerobot.image: unknown key; did you mean 'images'?"),
        (["lerobot", "images=png"], 2, "lerobot.images: expected 'video' or 'image', got 'png'"),
        (["lerobot", "images"], 2, "images: expected key=value"),
        (["robomimic"], 1, "a.zarr: no episode store here"),
    ],
)
def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    name, *settings = words
    assert main([name, str(tmp_path / "a.zarr"), str(tmp_path / "out"), *settings]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not any(tmp_path.iterdir())
