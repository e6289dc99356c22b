"""The command: the arguments that it refuses; collecting itself has tests of its own."""

from pathlib import Path

import pytest

from core.commands.collect import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "0 is not between 1 and 100,000"),
        (["--workers", "-1"], "-1 is not between 1 and 100,000"),
        (["--noise", "1.5"], "1.5 is not between 0 and 1"),
    ],
)
def test_numbers_out_of_range(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["metaworld", str(tmp_path / "a.zarr"), *words])
    assert message in capsys.readouterr().err


def test_an_unknown_environment_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metawrld", str(tmp_path / "a.zarr")]) == 2
    assert "environment: no environment is called 'metawrld'" in capsys.readouterr().err
    assert not (tmp_path / "a.zarr").exists()
