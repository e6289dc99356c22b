"""Success rates as tables."""

from dataclasses import replace

from core.report.run_success import (
    Cell,
    Column,
    Row,
    chain_table,
    condition_columns,
    headline,
    success_table,
)
from core.rollout.intervals import Rate
from core.rollout.results import ChainResult, EpisodeResult
from tests.core.report.factories import make_evaluation


def evaluation(*outcomes: tuple[str, str, bool], tiers: dict[str, str] | None = None):
    episodes = [
        EpisodeResult(c, task, i, "do it", done, 5) for i, (c, task, done) in enumerate(outcomes)
    ]
    return replace(make_evaluation("run"), episodes=episodes, tiers=tiers or {}, chains=[])


def test_conditions_are_columns_and_tasks_rows():
    measured = evaluation(
        ("standard", "a", True),
        ("standard", "a", False),
        ("standard", "b", True),
        ("standard", "c", False),
        ("blank_images", "a", False),
        tiers={"a": "easy", "b": "easy"},
    )
    table = success_table(condition_columns(measured))
    assert table is not None
    assert [column.name for column in table.columns] == ["policy", "images blanked"]
    rows = {row.name: row.cells for row in (*table.rows, *table.averages)}
    assert list(rows) == ["a", "b", "c", "mean, easy", "mean of tasks"]
    assert [cell.rate for cell in rows["a"] if cell] == [0.5, 0]
    assert rows["b"][1] is None
    assert rows["mean, easy"] == [Cell(0.75, Rate(2, 3)), None]
    assert rows["mean of tasks"] == [Cell(0.5, Rate(2, 4)), Cell(0, Rate(0, 1))]


def test_unequal_numbers_of_attempts_are_averaged_in_two_ways():
    table = success_table(
        condition_columns(
            evaluation(("standard", "a", True), ("standard", "a", False), ("standard", "b", True))
        )
    )
    assert table is not None
    assert table.averages == [
        Row("mean of tasks", [Cell(0.75)]),
        Row("all attempts", [Cell(2 / 3, Rate(2, 3))]),
    ]


def test_several_tiers_have_a_mean_of_their_means():
    outcomes = [("standard", "a", True), ("standard", "b", True), ("standard", "c", False)]
    measured = evaluation(*outcomes, tiers={"a": "easy", "b": "easy", "c": "hard"})
    table = success_table(condition_columns(measured))
    assert table is not None
    rows = {row.name: row.cells for row in table.averages}
    assert list(rows) == ["mean, easy", "mean of tiers", "mean of tasks"]
    assert rows["mean of tiers"] == [Cell(0.5)]
    assert rows["mean, easy"] == [Cell(1, Rate(2, 2))]


def test_no_row_of_averages_repeats_another_row():
    """A tier of one task is that task, and means of equal parts are equal."""
    alone = success_table(condition_columns(evaluation(("standard", "a", True))))
    assert alone is not None
    assert alone.averages == []
    outcomes = [("standard", "a", True), ("standard", "b", False)]
    for tiers in ({"a": "x", "b": "y"}, {"a": "x", "b": "x"}):
        table = success_table(condition_columns(evaluation(*outcomes, tiers=tiers)))
        assert table is not None
        assert table.averages == [Row("mean of tasks", [Cell(0.5, Rate(1, 2))])]


def test_nothing_measured_is_no_table():
    chains_only = evaluation()
    assert success_table(condition_columns(chains_only)) is None
    assert chain_table([Column("policy", 1, chains_only)]) is None
    assert headline(chains_only) == []


def test_chains_of_several_runs_stand_side_by_side():
    chains = [
        ChainResult(i, ("a", "b", "c"), ("", "", ""), done, 9)
        for i, done in enumerate((0, 1, 3, 3))
    ]
    long = replace(evaluation(), chains=chains)
    short = replace(evaluation(), chains=[ChainResult(0, ("a",), ("",), 1, 9)])
    table = chain_table(
        [Column("long", 1, long), Column("none", 2, evaluation()), Column("short", 3, short)]
    )
    assert table is not None
    assert [column.colour for column in table.columns] == [1, 3]
    assert [[cell and cell.rate for cell in row.cells] for row in table.rows] == [
        [0.75, 1],
        [0.5, None],
        [0.5, None],
    ]
    assert table.rows[0].cells[0] == Cell(0.75, Rate(3, 4))
    (fact,) = headline(long)
    assert fact.value == "1.75"
    assert (fact.detail, fact.interval) == ("of 3 tasks in a row, in 4 chains", "0.00 to 3.00")


def test_the_headline_gives_the_controls_beside_the_success():
    facts = headline(evaluation(("standard", "a", True), ("swapped_words", "a", False)))
    assert [(fact.name, fact.value) for fact in facts] == [
        ("mean success", "100%"),
        ("words swapped", "0%"),
    ]
    assert (facts[0].detail, facts[0].interval) == ("1 of 1", "20.7 to 100%")


def test_a_control_alone_is_not_the_policys_success():
    facts = headline(evaluation(("blank_images", "a", True)))
    assert [fact.name for fact in facts] == ["images blanked"]
