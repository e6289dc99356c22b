"""SECURITY.md promises nothing without a test, and names no test that is not there."""

import re
from pathlib import Path

import pytest

from tests.test_architecture import is_defined

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## What is promised")[2].partition("\n## ")[0]
# the rows of the table, without its head
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_promise_has_tests_that_are_there(row: list[str]) -> None:
    places = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row[-1])
    assert places
    for file, name in places:
        assert (ROOT / file).is_file(), file
        assert not name or is_defined(ROOT / file, name), f"{file} has no {name}"


def test_all_promises_are_found() -> None:
    assert len(ROWS) == 7
