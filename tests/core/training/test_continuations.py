"""The record of what changed in a run, by itself."""

import pytest

from core.errors import DataError
from core.training.continuations import (
    Continuation,
    comparable_from,
    continued,
    read_continuations,
    write_continuations,
)


def change(step, former, new, key="train.learning_rate", data_changes=()):
    return Continuation(step, {key: [former, new]}, list(data_changes), {"fps": 10.0})


def test_continuations_follow_one_another():
    first, second = change(4, 0.1, 0.2), change(6, 0.2, 0.3)
    assert continued([first], second) == [first, second]


def test_what_began_at_the_same_step_or_was_undone_becomes_one():
    former = [change(4, 0.1, 0.2), change(9, 0.2, 0.3)]
    merged = continued(former, change(4, 0.3, 0.4))
    assert [(entry.step, dict(entry.changes)) for entry in merged] == [
        (4, {"train.learning_rate": [0.1, 0.4]})
    ]
    assert continued([change(4, 0.1, 0.2)], change(4, 0.2, 0.1)) == []


def test_a_run_that_resumes_as_it_was_keeps_its_record():
    former = [change(4, 0.1, 0.2)]
    kept = continued(former, Continuation(6, {}, [], {}))
    assert kept == former
    kept = continued(former, Continuation(2, {}, [], {"fps": 10.0}))
    assert [entry.step for entry in kept] == [2], "the changed recipe holds from step 2 on now"


@pytest.mark.parametrize(
    ("entry", "comparable"),
    [
        (change(4, 0.1, 0.2), True),
        (change(4, 0.1, 0.2, "backbone.learning_rate"), True),
        (change(4, 0.1, 0.2, "optimizer.eps"), True),
        (change(4, 1, 2, "data.validation_episodes"), False),
        (change(4, 0.1, 0.2, "backbone.dropout"), False),
        (change(4, 0.1, 0.2, data_changes=["trained_on"]), False),
    ],
)
def test_errors_compare_as_long_as_only_training_changed(entry, comparable):
    assert entry.keeps_errors_comparable == comparable
    assert comparable_from([entry, change(9, 1, 2)]) == (0 if comparable else 4)


def test_the_file_holds_what_was_written(tmp_path):
    assert read_continuations(tmp_path) == []
    entries = [change(4, None, 0.2), change(6, ["a"], ["b"], "data.cameras", ["trained_on"])]
    write_continuations(tmp_path, entries)
    assert read_continuations(tmp_path) == entries
    assert entries[1].describe() == (
        "changed after step 6: data.cameras: ['a'] -> ['b']; other data (trained_on)"
    )
    write_continuations(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"step": 1}]', '[{"stop": 1}]'])
def test_a_damaged_file_is_one_line(tmp_path, text):
    (tmp_path / "continuations.json").write_text(text)
    with pytest.raises(DataError, match=r"continuations\.json: cannot read it") as caught:
        read_continuations(tmp_path)
    assert "\n" not in str(caught.value)
