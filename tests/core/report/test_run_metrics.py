"""metrics.jsonl becomes series and the joint-training table."""

import json
import math

import pytest

from core.errors import DataError
from core.report.run_metrics import joint_table, loss_terms, read_metrics, training_notes
from tests.core.report.factories import PARTS, TASKS, write_metrics


def test_lines_become_series(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 2, "loss": 3}\n\n{"step": 1, "loss": NaN, "a/b": 4}\n{"step": 2, "lo',
        encoding="utf-8",
    )
    metrics = read_metrics(path)
    assert metrics["loss"].steps.tolist() == [1, 2]
    assert metrics["loss"].last == 3
    assert metrics["a/b"].values.tolist() == [4]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"step": "x"}',
        '{"step": 1, "loss": [1]}',
        "7",
        "\x00",
        '{"step": 1, "\\ud800": 2}',
        '{"step": 1, "joint/backbone/parameters": NaN}',
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics.jsonl:2: no measurement"):
        read_metrics(path)


def test_the_joint_table_is_read_at_both_ends_of_the_run(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl", TASKS[:2], steps=50)
    table = joint_table(read_metrics(tmp_path / "metrics.jsonl"))
    assert table is not None
    assert [row.part for row in table.rows] == list(PARTS)
    assert (table.first_step, table.last_step) == (1, 50)
    assert table.rows[0].first["gradient_norm"] > table.rows[0].last["gradient_norm"]
    assert table.parameters == sum(128 * 8 ** (n + 1) for n in range(len(PARTS)))
    assert table.terms == ["gripper", "pose"]
    first, last = table.rows[0].losses["pose"]
    assert first > last > 0


@pytest.mark.parametrize(
    ("parameters", "trainable", "expected"), [(5, 5, "yes"), (5, 0, "frozen"), (0, 0, "-")]
)
def test_a_part_trains_or_is_frozen(tmp_path, parameters, trainable, expected):
    keys = {
        "parameters": parameters,
        "trainable": trainable,
        "learning_rate": 0,
        "gradient_norm": 0,
        "update": 0,
    }
    values = ", ".join(f'"joint/text_encoder/{key}": {value}' for key, value in keys.items())
    (tmp_path / "m").write_text(f'{{"step": 1, {values}}}\n', encoding="utf-8")
    table = joint_table(read_metrics(tmp_path / "m"))
    assert table is not None
    assert [row.trains for row in table.rows] == [expected]


def test_a_part_that_rests_in_the_last_stage_is_not_frozen(tmp_path):
    keys = {"parameters": 5, "learning_rate": 0, "gradient_norm": 0, "update": 0}
    lines = [
        {"step": step, **{f"joint/backbone/{k}": v for k, v in (keys | {"trainable": n}).items()}}
        for step, n in ((1, 5), (2, 0))
    ]
    (tmp_path / "m").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = joint_table(read_metrics(tmp_path / "m"))
    assert table is not None
    assert [row.trains for row in table.rows] == ["yes"]


def test_an_interrupted_first_measurement_is_no_table(tmp_path):
    (tmp_path / "m").write_text(
        '{"step": 1, "joint/text_encoder/parameters": 3}\n', encoding="utf-8"
    )
    assert joint_table(read_metrics(tmp_path / "m")) is None


def test_one_term_is_no_list_of_terms(tmp_path):
    (tmp_path / "m").write_text(
        '{"step": 1, "loss": 3, "pose": 3, "gradient_norm": 1}\n', encoding="utf-8"
    )
    assert loss_terms(read_metrics(tmp_path / "m")) == {}


def test_null_stands_for_a_figure_that_is_not_finite(tmp_path):
    lines = ['{"step": 1, "validation/error": 0.5}\n', '{"step": 2, "validation/error": null}\n']
    (tmp_path / "m").write_text("".join(lines))
    series = read_metrics(tmp_path / "m")["validation/error"]
    assert series.values[0] == 0.5
    assert math.isnan(series.last)
    (tmp_path / "m").write_text('{"step": 1, "joint/backbone/parameters": null}\n')
    with pytest.raises(DataError, match="no measurement"):
        read_metrics(tmp_path / "m")


def test_skipped_steps_and_early_stopping_are_told(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "skipped": 1.0} for step in range(1, 15)]
    lines += [{"step": 20, "loss": 2.0, "pose": 1.0, "word": 1.0}, {"step": 20, "stopped_early": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = read_metrics(path)
    stopped, skipped = training_notes(metrics)
    assert stopped == "Early stopping ended the run after step 20."
    assert skipped.startswith("14 steps were skipped")
    assert skipped.endswith("11, 12 and later ones.")
    assert loss_terms(metrics).keys() == {"pose", "word"}
    assert training_notes({}) == []
