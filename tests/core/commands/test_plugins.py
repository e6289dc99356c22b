"""The command: what it prints of each component."""

import pytest

from core.commands.plugins import main
from core.registry.components import KINDS


def test_components_are_listed_with_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dataset"
    assert any(line.startswith("  npz  [") for line in lines)
    assert "      fps: float > 0 | unset = unset" in lines
    assert "      instruction: str | unset = unset" in lines
    assert "      action: str | tuple[str, ...] | unset = unset" in lines
    assert not any(line in KINDS for line in lines[1:])


def test_every_kind_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert set(KINDS) <= set(capsys.readouterr().out.splitlines())
