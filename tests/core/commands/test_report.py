"""The command: it writes a report and prints where."""

from pathlib import Path

import pytest

from core.commands.report import main
from tests.core.report.factories import make_run


def test_the_path_of_the_report_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", steps=20, length=4)
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").is_file()
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_folder_without_a_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no run here")
