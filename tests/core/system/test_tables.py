from io import StringIO

import pytest
from hypothesis import given, settings, strategies as st
from rich.cells import cell_len

from core.system.console import PlainConsole
from core.system.tables import NumberTable, shorten

NAMES = ("pick_up_the_red_block_and_open_the_drawer", "lift[red]", "[/easy] :smile:")


def printed(table: NumberTable, width: int) -> list[str]:
    console = PlainConsole(file=StringIO(), width=width, markup=False, emoji=False, soft_wrap=True)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def make_table(columns: int, number: str = "97.2%") -> NumberTable:
    headings = [f"blank images {column}" for column in range(columns)]
    table = NumberTable(("task", *headings), title="success rates")
    for row, name in enumerate(NAMES):
        table.add_row(name, *(f"{row}{column}/{number}" for column in range(columns)))
    table.add_section()
    table.add_row("all", *["-"] * columns)
    return table


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@given(columns=st.integers(1, 8), number=st.text("0123456789.%", max_size=12))
@settings(deadline=None, max_examples=20)
def test_numbers_stay_whole_in_every_window(width: int, columns: int, number: str) -> None:
    lines = printed(make_table(columns, number), width)
    assert max(map(cell_len, lines)) <= width
    words = " ".join(lines).split()
    for row in range(len(NAMES)):
        for column in range(columns):
            assert f"{row}{column}/{number}" in words


def test_a_wide_window_has_one_row_for_each_name() -> None:
    lines = printed(make_table(5), 200)
    assert len(lines) == 1 + 3 + len(NAMES) + 2 + 1  # title, heading, rows, total, empty
    for name in NAMES:
        assert sum(line.lstrip().startswith(name) for line in lines) == 1


def test_a_narrow_window_repeats_the_names_and_cuts_them_in_the_middle() -> None:
    lines = printed(make_table(5), 40)
    cut = [line for line in lines if line.startswith(" pick") and "…" in line]
    assert len(cut) > 1
    assert all(line.split()[0].endswith("wer") for line in cut)
    assert sum("success rates" in line for line in lines) == 1


@given(name=st.text(max_size=40), width=st.integers(1, 40))
@settings(deadline=None)
def test_a_name_is_cut_only_if_it_is_too_long(name: str, width: int) -> None:
    short = shorten(name, width)
    assert cell_len(short) <= width
    assert (short == name) == (cell_len(name) <= width)


def test_control_codes_of_names_are_shown_and_measured() -> None:
    table = NumberTable(("task", "episodes"))
    table.add_row("lift\x1b[2Jthe cube", "3")
    lines = printed(table, 60)
    assert lines[-2].split() == [r"lift\x1b[2Jthe", "cube", "3"]
    assert len({len(line) for line in lines}) == 1
