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


def test_results_elsewhere_are_reported_to_any_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", steps=20, length=4)
    folder = (run / "evaluation").rename(tmp_path / "often")
    assert main([str(folder)]) == 0
    assert main([str(folder), "--output", str(tmp_path / "page.html")]) == 0
    own, page = capsys.readouterr().out.splitlines()
    assert (own, page) == (str(folder / "report.html"), str(tmp_path / "page.html"))
    assert Path(own).read_bytes() == Path(page).read_bytes()
    assert "lift_red" in Path(page).read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no run here")
