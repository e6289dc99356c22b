"""The command: what it prints, and which episodes it names."""

import pytest

from core.commands.repair import main
from core.store.store import EpisodeStore


def test_there_may_be_nothing_to_repair(
    store: EpisodeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(store.path), "--jobs", "1"]) == 0
    assert f"{store.path}: nothing to repair, all " in capsys.readouterr().out


def test_lost_episodes_are_named(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    before = {store.episode_id(episode) for episode in range(len(store))}
    file = next((store.path / "parts").glob("*/cam/wrist/data/c/0"))
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    assert main([str(store.path), "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    lost = {line.removeprefix("  lost: ") for line in lines if line.startswith("  lost: ")}
    repaired = EpisodeStore(store.path)
    assert lost
    assert {repaired.episode_id(e) for e in range(len(repaired))} == before - lost
    assert any(line.endswith(f"are kept, {len(lost)} are lost") for line in lines)


def test_a_url_cannot_be_repaired(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["s3://bucket/store.zarr"])
    assert "episodes are written to a folder" in capsys.readouterr().err
