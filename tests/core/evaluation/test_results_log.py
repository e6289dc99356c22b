import json
from dataclasses import asdict
from pathlib import Path

import pytest

from core.errors import DataError
from core.evaluation import results_log
from core.evaluation.results_log import LogEntry, PlanSummary, ResultsLog, read_results
from core.rollout.results import ChainResult, EpisodeResult, Timing

IDENTITY = {
    "policy": {"weights_sha256": "a", "recipe_sha256": "r", "run": "x"},
    "protocol": {"execute": 1, "tasks": ["lift"]},
}
ENTRIES = [
    LogEntry(
        EpisodeResult("standard", "lift", 1, "lift it", True, 7), Timing(0.1, (1 / 3, 2.5), 9)
    ),
    LogEntry(
        ChainResult(2, ("lift", "push"), ("lift it",), 0, 9, "died (SIGKILL)"), Timing(2.0, (), 0)
    ),
]


def test_results_come_back_as_they_were(tmp_path):
    log = ResultsLog(tmp_path / "evaluation", IDENTITY)
    for entry in ENTRIES:
        log.append(entry)
    assert ResultsLog(tmp_path / "evaluation", IDENTITY).entries == ENTRIES


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_torn_last_line_is_dropped(tmp_path, share):
    log = ResultsLog(tmp_path, IDENTITY)
    log.append(ENTRIES[0])
    whole = log.path.stat().st_size
    log.append(ENTRIES[1])
    with log.path.open("r+b") as file:
        file.truncate(whole + int((log.path.stat().st_size - whole) * share))
    again = ResultsLog(tmp_path, IDENTITY)
    assert again.entries == ENTRIES[:1]
    again.append(ENTRIES[1])
    assert ResultsLog(tmp_path, IDENTITY).entries == ENTRIES


def test_two_evaluations_in_one_folder_are_noticed(tmp_path):
    first, second = ResultsLog(tmp_path, IDENTITY), ResultsLog(tmp_path, IDENTITY)
    first.append(ENTRIES[0])
    with pytest.raises(DataError, match=r"another evaluation writes here, too; .*--output"):
        second.append(ENTRIES[0])
    first.append(ENTRIES[1])
    assert ResultsLog(tmp_path, IDENTITY).entries == ENTRIES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    log = ResultsLog(tmp_path, IDENTITY)
    monkeypatch.setattr(results_log, "open_to_append", lambda _: Path("/dev/full").open("ab"))  # noqa: SIM115
    log._size = 0
    with pytest.raises(
        DataError, match=r"episodes.jsonl: cannot write it \(No space left on device\); make room"
    ):
        log.append(ENTRIES[0])
    assert log.entries == []


def test_links_that_lead_out_of_the_folder_are_not_written_to(tmp_path):
    folder, letter = tmp_path / "evaluation", tmp_path / "letter.txt"
    letter.write_text("precious")
    log = ResultsLog(folder, IDENTITY)
    log.path.unlink()
    log.path.symlink_to(letter)
    log._size = len("precious")
    with pytest.raises(DataError, match=r"episodes.jsonl: cannot write it \(is a link"):
        log.append(ENTRIES[0])
    with pytest.raises(DataError, match=r"episodes.jsonl: a link that leads out of"):
        ResultsLog(folder, IDENTITY)
    log.path.unlink()
    (folder / "rollouts").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"rollouts: a link that leads out of"):
        ResultsLog(folder, IDENTITY)
    assert letter.read_text() == "precious"


def test_a_torn_first_line_is_a_new_evaluation_without_leftovers(tmp_path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "episodes.jsonl").write_text('{"policy": {"wei')
    for name in ("lift-success.mp4", "lift-failure.npz"):
        (tmp_path / "rollouts" / name).write_bytes(b"of an earlier evaluation")
    (tmp_path / "rollouts" / "mine.mp4").write_bytes(b"of somebody else")
    assert ResultsLog(tmp_path, IDENTITY).entries == []
    assert [path.name for path in (tmp_path / "rollouts").iterdir()] == ["mine.mp4"]
    assert json.loads((tmp_path / "episodes.jsonl").read_text()) == IDENTITY


def test_a_strangers_results_are_not_replaced(tmp_path):
    (tmp_path / "results.json").write_text('{"of": "another program"}')
    (tmp_path / "predictions.npz").write_bytes(b"of another program")
    with pytest.raises(DataError, match=r"results.json: would be replaced, and is no evaluation"):
        ResultsLog(tmp_path, IDENTITY)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["predictions.npz", "results.json"]


def test_an_evaluation_of_something_else_is_refused_with_every_difference(tmp_path):
    ResultsLog(tmp_path, IDENTITY).append(ENTRIES[0])
    before = (tmp_path / "episodes.jsonl").read_bytes()
    other = {
        "policy": {"weights_sha256": "b", "recipe_sha256": "s", "run": "y"},
        "protocol": {"execute": 2, "tasks": ["lift"]},
    }
    with pytest.raises(DataError) as caught:
        ResultsLog(tmp_path, other)
    assert "policy.weights_sha256 'a' there, 'b' now" in str(caught.value)
    assert "protocol.execute 1 there, 2 now" in str(caught.value)
    assert "recipe_sha256" not in str(caught.value)  # see IGNORED_DIFFERENCES
    assert "--output" in str(caught.value)
    assert (tmp_path / "episodes.jsonl").read_bytes() == before


@pytest.mark.parametrize(("line", "message"), [(0, "line 1: damaged"), (1, "line 2: damaged")])
def test_a_damaged_line_is_named(tmp_path, line, message):
    ResultsLog(tmp_path, IDENTITY).append(ENTRIES[0])
    path = tmp_path / "episodes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[line] = '{"result": 3}\n'
    path.write_text("".join(lines))
    with pytest.raises(DataError, match=message):
        ResultsLog(tmp_path, IDENTITY)


def test_a_log_of_an_earlier_version_says_what_to_do(tmp_path):
    path = ResultsLog(tmp_path, IDENTITY).path
    with path.open("a") as file:
        file.write('{"episodes": [], "chains": [], "seconds": 1.0, "inference_ms": 2.0}\n')
    with pytest.raises(
        DataError,
        match=r"jsonl, line 2: written by an earlier version, .*; remove the file to evaluate anew",
    ):
        ResultsLog(tmp_path, IDENTITY)


# ------------------------------------------------------------------ an evaluation in pieces is read

WHOLE = {
    "policy": {"run": "x"},
    "environment": {"name": "toy"},
    "protocol": {"lanes": 4, "tasks": ["push", "lift"], "controls": ["blank_images"]},
}


def attempt(condition: str, task: str, seed: int) -> LogEntry:
    return LogEntry(EpisodeResult(condition, task, seed, "go", True, 7), Timing(0.5, (2.0,), 3))


def test_an_interrupted_evaluation_is_read_in_the_order_of_its_plan(tmp_path):
    log = ResultsLog(tmp_path, WHOLE, PlanSummary(9, {"lift": "easy"}))
    log.append(LogEntry(ChainResult(5, ("lift",), ("lift it",), 1, 9), Timing(1.0, (), 0)))
    for condition, task, seed in (
        ("blank_images", "lift", 1),
        ("standard", "lift", 2),
        ("standard", "lift", 1),
        ("standard", "push", 1),
    ):
        log.append(attempt(condition, task, seed))
    evaluation = read_results(tmp_path)
    assert [(e.condition, e.task, e.seed) for e in evaluation.episodes] == [
        ("standard", "push", 1),
        ("standard", "lift", 1),
        ("standard", "lift", 2),
        ("blank_images", "lift", 1),
    ]
    assert evaluation.interruption == "interrupted after 5 of 9 attempts and chains"
    assert (evaluation.chain_length, evaluation.tiers) == (1.0, {"lift": "easy"})
    assert evaluation.time["seconds"] == 3.0
    assert evaluation.time["rows_busy"] == 12 / 16


@pytest.mark.parametrize("entries", [0, 1])
def test_the_log_of_an_earlier_version_does_not_say_how_many_are_missing(tmp_path, entries):
    lines = [json.dumps(WHOLE), *[json.dumps(asdict(attempt("standard", "lift", 1)))] * entries]
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    evaluation = read_results(tmp_path)
    assert (evaluation.missing, len(evaluation.episodes)) == (None, entries)
    assert evaluation.interruption == f"interrupted after {entries} attempts"
    # and such an evaluation goes on
    assert len(ResultsLog(tmp_path, WHOLE, PlanSummary(3)).entries) == entries


def test_without_results_there_is_no_evaluation(tmp_path):
    assert read_results(tmp_path) is None
    (tmp_path / "episodes.jsonl").write_text('{"policy": ')
    assert read_results(tmp_path) is None


@pytest.mark.parametrize(
    "header",
    [
        "{}",
        '{"policy": 3, "environment": {}, "protocol": {}}',
        '{"policy": {}, "environment": {}, "protocol": {"controls": 3}}',
        '{"policy": {}, "environment": {}, "protocol": {"lanes": "x"}}',
        '{"policy": {}, "environment": {}, "protocol": {}, "plan": {"rollouts": "x"}}',
        '{"a":' * 5000 + "1" + "}" * 5000,
    ],
)
def test_a_damaged_first_line_is_one_line(tmp_path, header):
    lines = [header, json.dumps(asdict(attempt("standard", "lift", 1)))]
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"episodes.jsonl: damaged") as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_an_earlier_version_did_not_log_is_no_difference(tmp_path):
    later = {
        "policy": {**IDENTITY["policy"], "components": {"policy_head": "lstm of joinery 2"}},
        "protocol": {**IDENTITY["protocol"], "max_steps": {"lift": 40}},
    }
    ResultsLog(tmp_path, IDENTITY).append(ENTRIES[0])
    assert ResultsLog(tmp_path, later).entries == ENTRIES[:1]
    again = tmp_path / "again"
    ResultsLog(again, later)
    other = {**later, "protocol": {**later["protocol"], "max_steps": {"lift": 10}}}
    with pytest.raises(DataError, match="max_steps"):
        ResultsLog(again, other)
