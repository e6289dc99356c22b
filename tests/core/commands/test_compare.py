"""The command: it compares two different runs or more."""

from pathlib import Path

import pytest

from core.commands.compare import main
from tests.core.report.factories import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    return [str(make_run(folder / name, steps=20, length=4)) for name in ("first", "second")]


def test_the_page_is_compare_html_or_another(
    runs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(runs) == 0
    assert capsys.readouterr().out == "compare.html\n"
    page = (tmp_path / "compare.html").read_bytes()
    assert main([*runs, "--output", "again.html"]) == 0
    assert (tmp_path / "again.html").read_bytes() == page


def test_one_run_is_no_comparison(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(runs[:1])
    assert "name two folders or more" in capsys.readouterr().err


def test_a_run_is_not_compared_with_itself(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([runs[0], f"{runs[1]}/../first"])
    assert "an evaluation is named twice" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([runs[0], f"{runs[0]}/evaluation"])
    assert "an evaluation is named twice" in capsys.readouterr().err
