"""The page about a run: its sections, and what it does about missing and damaged files."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core import cli
from core.errors import DataError
from core.report.run_report import write_report
from core.rollout.results import EpisodeResult
from core.training.continuations import Continuation, write_continuations
from tests.core.report.factories import make_evaluation, write_evaluation, write_rollout

HOSTILE = "<script>alert('$1')</script>&\"'"
SECTIONS = [
    "Success",
    "Rollouts",
    "Curves",
    "Action chunks",
    "Joint training",
    "Recipe",
    "Conditions",
]


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"<h2>(.+?)(?: <button.*)?</h2>", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_report_shows_everything(run):
    text = page(run)
    assert list(sections(text)) == SECTIONS
    assert 'class="note"' not in text
    assert "95% interval" in text.partition("<main>")[0]
    assert "2 or more" in sections(text)["Success"]
    assert sections(text)["Rollouts"].count('<div class="player"') == 4
    assert "validation" not in sections(text)["Joint training"]


def test_jaws_are_drawn_and_explained_only_where_there_is_a_gripper(run):
    films = sections(page(run))["Rollouts"]
    assert "The jaws and" in films
    assert films.count('class="gripper"') == films.count('class="trace"') == 4
    for path in (run / "evaluation" / "rollouts").glob("*.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        arrays["gripper"] = np.full_like(arrays["gripper"], np.nan)
        np.savez(path, **arrays)
    without = sections(page(run))["Rollouts"]
    assert "with all cameras." in without
    assert not any(word in without for word in ("jaws", 'class="gripper"', 'class="trace"'))


def test_failures_come_first_and_no_box_is_empty(run):
    write_evaluation(run, make_evaluation("kosmos_lstm", tasks=["lift_red", "lift_green"]))
    (run / "evaluation" / "rollouts" / "lift_red-failure.npz").unlink(missing_ok=True)
    write_rollout(run, "lift_green", 1, 8, success=False)
    films = sections(page(run))["Rollouts"]
    order = re.findall(r'<h4>([^ ]+) |class="verdict (yes|no)"', films)
    tasks_and_verdicts = [(task or verdict).replace("<wbr>", "") for task, verdict in order]
    assert tasks_and_verdicts == ["lift_green", "no", "yes", "lift_red", "yes"]
    assert "was recorded." not in films
    assert re.search(r"lift_<wbr>green <small>\d+ of 10 succeeded</small>", films)


def test_conditions_are_words(run):
    shown = sections(page(run))["Conditions"]
    terms = re.findall(r"<dt>(.+?)</dt>", shown)
    assert len(terms) > 10
    assert not [term for term in terms if "_" in term]
    assert not re.search(r"<dd>[\[{]|&#34;|\d\.\d{5}", shown)


def test_a_report_asks_for_nothing_else(run):
    text = page(run)
    assert "default-src 'none'" in text
    links = re.findall(r'(?:src|href)="([^"]+)"|url\(([^)]+)\)|@import', text)
    assert {re.split(r"[:,\w]", link[0] or link[1])[0] or "data" for link in links} <= {"#", "data"}


def test_a_report_shows_what_changed_during_the_run(run):
    before = sections(page(run))["Recipe"]
    assert "<li>" not in before
    change = Continuation(400, {"data.validation_episodes": [1, 2]}, ["trained_on"], {})
    write_continuations(run, [change])
    shown = sections(page(run))["Recipe"]
    assert "changed after step 400: data.validation_episodes: 1 -&gt; 2; other data" in shown
    assert "cannot be compared" in shown


def test_the_same_run_gives_the_same_page(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "elsewhere" / run.name))
    assert page(run) == page(copy) == page(run)


@pytest.mark.parametrize(
    ("missing", "where", "note"),
    [
        ("recipe.toml", "Recipe", "recipe.toml is missing"),
        ("metrics.jsonl", "Curves", "metrics.jsonl is missing"),
        ("metrics.jsonl", "Joint training", "metrics.jsonl is missing"),
        ("evaluation/results.json", "Success", "no evaluation/results.json"),
        ("evaluation/results.json", "Conditions", "Not evaluated yet"),
        ("evaluation/predictions.npz", "Action chunks", "evaluation/predictions.npz is missing"),
        ("evaluation/rollouts", "Rollouts", "evaluation/rollouts is missing"),
    ],
)
def test_what_is_missing_is_left_out_with_a_note(run, missing, where, note):
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    shown = sections(page(run))
    assert list(shown) == SECTIONS
    assert note in shown[where].partition('class="note"')[2]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="no run here"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("damaged", "content", "message"),
    [
        ("recipe.toml", b"[train\n", "not valid TOML"),
        ("recipe.toml", b"\xff\xfe", "not valid TOML"),
        ("metrics.jsonl", b'{"step": 1, "loss": 2}\n{"step": 2, "lo\n', ":2: no measurement"),
        ("metrics.jsonl", b'{"step": 1, "loss": "two"}\n', ":1: no measurement"),
        ("metrics.jsonl", b"[1]\n", ":1: no measurement"),
        ("evaluation/results.json", b'{"episodes": 3}', "no evaluation"),
        ("evaluation/predictions.npz", b"PK\x03\x04 not a zip", "damaged"),
        ("evaluation/predictions.npz", b"", "damaged"),
        ("evaluation/rollouts/lift_red-success.npz", b"\x93NUMPY", "damaged"),
    ],
)
def test_a_damaged_file_is_one_line_and_the_old_report_stays(
    run, damaged, content, message, capsys
):
    old = page(run)
    (run / damaged).write_bytes(content)
    assert cli.main(["report", str(run)]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert str(run / damaged) in shown
    assert message in shown
    assert (run / "report.html").read_text(encoding="utf-8") == old


def test_hostile_text_is_escaped(run):
    (run / "recipe.toml").write_text(
        f"# {HOSTILE}\n[train]\nname = '''{HOSTILE}'''\n", encoding="utf-8"
    )
    write_evaluation(run, make_evaluation(HOSTILE, tasks=[HOSTILE, "lift_red"]))
    path = write_rollout(run, "x", 3, 4, success=True)
    predictions = run / "evaluation" / "predictions.npz"
    for file, changes in (
        (path, {"task": HOSTILE, "instruction": HOSTILE}),
        (predictions, {"0/task": HOSTILE, "0/instruction": HOSTILE, "names": [HOSTILE, *"abcdef"]}),
    ):
        with np.load(file) as arrays:
            np.savez(
                file, **(dict(arrays) | {name: np.array(value) for name, value in changes.items()})
            )
    line = {"step": 1, f"{HOSTILE}/x": 1, HOSTILE.replace("/", ""): 1, f"joint/{HOSTILE}/update": 1}
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    text = page(run)
    assert text.count("<script") == 1
    assert "alert(&#39;$1&#39;)" in text


def test_only_chains_were_tried(run):
    evaluation = replace(make_evaluation("chains"), episodes=[])
    write_evaluation(run, evaluation)
    text = page(run)
    assert "No single tasks were tried" in text
    assert "average chain length" in text


def test_unfinished_attempts_are_named(run):
    evaluation = make_evaluation("broken")
    crashed = EpisodeResult(
        "standard", "lift_red", 77, "lift", False, 3, "the process died (signal 11)"
    )
    write_evaluation(run, replace(evaluation, episodes=[*evaluation.episodes, crashed]))
    assert "lift_red, standard, seed 77: the process died (signal 11)" in page(run)
