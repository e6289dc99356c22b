"""Scores as a table."""

from dataclasses import replace

from core.report.run_report import write_report
from core.report.run_scores import score_facts, score_table
from core.report.run_success import Column, condition_columns
from core.rollout.results import EpisodeResult
from tests.core.report.factories import make_evaluation, make_run, write_evaluation


def evaluation(*scores: tuple[str, str, float | None]):
    episodes = [
        EpisodeResult(condition, task, i, "do it", False, 4, None, i == 0, score, score, score)
        for i, (condition, task, score) in enumerate(scores)
    ]
    return replace(make_evaluation("run"), episodes=episodes, chains=[])


def test_each_measure_has_a_row_for_each_task_and_one_for_all():
    measured = evaluation(
        ("standard", "a", 0.5), ("standard", "a", 0.7), ("standard", "b", 1), ("no_eyes", "a", 0)
    )
    table = score_table(condition_columns(measured))
    assert table is not None
    assert [column.name for column in table.columns] == ["policy", "no eyes"]
    assert list(table.groups) == ["best score", "mean score", "sum of scores"]
    rows = {row.name: row.cells for row in table.groups["best score"]}
    assert rows["a"] == [("0.6", "-0.671 to 1.87"), ("0", "")]
    assert rows["b"] == [("1", ""), None]
    assert rows["all attempts"] == [("0.733", "0.108 to 1.36"), ("0", "")]


def test_each_metric_has_a_group_of_its_own():
    scored, plain = evaluation(("standard", "a", 0.5)), evaluation(("standard", "a", None))
    metrics = {"effort": {"best": 3.0, "mean": 2.0, "sum": 8.0}}
    measured = replace(plain, episodes=[replace(plain.episodes[0], metrics=metrics)])
    table = score_table([Column("scored", 1, scored), Column("measured", 2, measured)])
    assert table is not None
    assert list(table.groups)[-1] == "effort, all attempts"
    rows = {row.name: row.cells for row in table.groups["effort, all attempts"]}
    assert rows == {
        "highest": [None, ("3", "")],
        "mean": [None, ("2", "")],
        "sum": [None, ("8", "")],
    }
    alone = score_table([Column("measured", 1, measured)])
    assert alone is not None
    assert list(alone.groups) == ["effort, all attempts"]


def test_evaluations_without_scores_have_no_column_and_no_table():
    without, with_scores = evaluation(("standard", "a", None)), evaluation(("standard", "a", 1))
    assert score_table([Column("run", 1, without)]) is None
    assert score_facts(without) == []
    table = score_table([Column("one", 1, without), Column("two", 2, with_scores)])
    assert table is not None
    assert [column.colour for column in table.columns] == [2]
    assert [row.name for row in table.groups["mean score"]] == ["a"]


def test_a_report_shows_scores_and_ends(tmp_path):
    run = make_run(tmp_path / "run", steps=20, length=3)
    assert "Scores" not in write_report(run).read_text(encoding="utf-8")
    write_evaluation(run, evaluation(("standard", "push_red_left", 0.5), ("standard", "b", 0.25)))
    page = write_report(run).read_text(encoding="utf-8")
    assert "<h3>Scores</h3>" in page
    assert "<dt>best score</dt><dd><strong>0.375</strong>" in page
    assert "The environment ended 1 of the policy's attempts before success" in page


def test_the_jerk_is_among_the_facts():
    plain = evaluation(("standard", "a", None), ("standard", "a", None), ("no_eyes", "a", None))
    jerks = (0.1, 0.3, 5.0)
    episodes = [replace(e, jerk=jerk) for e, jerk in zip(plain.episodes, jerks, strict=True)]
    (fact,) = score_facts(replace(plain, episodes=episodes))
    assert (fact.name, fact.value) == ("jerk of the actions", "0.2")
