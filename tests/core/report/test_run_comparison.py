"""The page that puts several runs side by side."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import DataError
from core.report.run_comparison import (
    differing_components,
    held_out_errors,
    overview,
    part_sizes,
    recipe_differences,
    run_names,
    write_comparison,
)
from core.report.run_files import read_run
from tests.core.report.factories import TASKS, make_run, write_evaluation, write_metrics


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of other tasks, with a frozen vision encoder and another rate."""
    folder = tmp_path_factory.mktemp("others") / "frozen_vision"
    return make_run(
        folder, tasks=TASKS[1:4], skill=0.4, steps=100, length=4, learning_rate=0.01, chains=0
    )


def test_runs_stand_side_by_side(pristine_run, other, tmp_path):
    text = write_comparison([pristine_run, other], tmp_path / "compare.html").read_text(
        encoding="utf-8"
    )
    assert re.findall("<h2>(.+?)</h2>", text) == [
        "Overview",
        "Success",
        "Conditions",
        "Curves",
        "Recipes",
        "Sizes",
    ]
    assert 'class="note"' not in text
    assert "Is the difference more than chance?" in text
    assert len(re.findall(r"<td>10 pairs<small[^>]*>\d+ won, \d+ lost</small></td>", text)) == 1
    assert text.count('<th scope="row">push_<wbr>red_<wbr>left</th>') == 1


def test_only_different_keys_are_listed(pristine_run, other):
    same, lines = recipe_differences([read_run(pristine_run), read_run(other)])
    assert {line.name: line.texts for line in lines} == {
        "train.steps": ["300", "100"],
        "train.learning_rate": ["0.001", "0.01"],
        "vision_encoder.train": ["true", "false"],
    }
    assert same == 7


def test_a_run_without_a_recipe_does_not_count_as_different(pristine_run, other, run):
    (run / "recipe.toml").unlink()
    same, lines = recipe_differences([read_run(pristine_run), read_run(run)])
    assert (same, lines) == (10, [])
    _, lines = recipe_differences([read_run(pristine_run), read_run(run), read_run(other)])
    assert {line.texts[1] for line in lines} == {"-"}


def test_a_key_under_its_former_name_is_no_difference(pristine_run, tmp_path):
    recipe = (pristine_run / "recipe.toml").read_text(encoding="utf-8")
    former, present = tmp_path / "former", tmp_path / "present"
    for folder, keys in (
        (former, "lanes = 8\nexecute = 2"),
        (present, "num_envs = 8\nreplan_steps = 2"),
    ):
        folder.mkdir()
        (folder / "recipe.toml").write_text(f"{recipe}\n[evaluate]\n{keys}\n", encoding="utf-8")
    records = [read_run(former), read_run(present)]
    assert recipe_differences(records) == (12, [])
    assert records[0].settings["evaluate"] == {"num_envs": 8, "replan_steps": 2}
    assert "lanes = 8" in (records[0].recipe or "")


def test_what_a_run_has_not_measured_stays_empty(pristine_run, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    write_metrics(bare / "metrics.jsonl", TASKS[:1], steps=20)
    records = [read_run(bare), read_run(pristine_run)]
    rows = overview(records)
    assert [fact and fact.name for fact in rows["mean success"]] == [None, "mean success"]
    assert None not in rows["error on held-out episodes"]
    assert part_sizes(records)[-1].name == "of which train"
    text = write_comparison([bare, bare, pristine_run], tmp_path / "c.html").read_text(
        encoding="utf-8"
    )
    assert "Fewer than two of these folders have a recipe.toml" in text


def test_two_evaluations_of_one_run_are_compared(run, tmp_path):
    evaluation = read_run(run).evaluation
    often = run / "often"
    (often / "evaluation").mkdir(parents=True)
    protocol = {**evaluation.protocol, "execute": 5}
    write_evaluation(often, replace(evaluation, protocol=protocol, missing=3))
    (often / "evaluation" / "results.json").rename(often / "results.json")
    (often / "evaluation").rmdir()
    records = [read_run(run), read_run(often)]
    assert records[1].recipe == records[0].recipe
    rows = overview(records)["evaluation"]
    assert [fact.value for fact in rows] == ["complete", "interrupted"]
    assert rows[1].detail == "after 68 of 71 attempts and chains"
    page = write_comparison([run, often], tmp_path / "c.html").read_text(encoding="utf-8")
    assert "All were evaluated with one recipe." in page
    assert "actions executed of each chunk" in page


def test_other_packages_of_parts_have_a_row(pristine_run, run, tmp_path):
    records = [
        replace(read_run(pristine_run), components={"policy_head": f"lstm of lab {version}"})
        for version in (1, 2, 2)
    ]
    records[2] = replace(records[2], components={})
    (line,) = differing_components(records)
    assert (line.name, line.texts) == ("policy head", ["lstm of lab 1", "lstm of lab 2", "-"])
    assert differing_components([records[0], records[0], records[2]]) == []
    packages = {"policy_head": {"name": "lstm", "package": "lab", "version": "1"}}
    (run / "packages.json").write_text(json.dumps(packages), encoding="utf-8")
    others = tmp_path / "other"
    shutil.copytree(run, others)
    packages["policy_head"]["version"] = "2"
    (others / "packages.json").write_text(json.dumps(packages), encoding="utf-8")
    text = write_comparison([run, others], tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<td>lstm of lab 1</td><td>lstm of lab 2</td>" in text


def test_errors_on_held_out_episodes_stand_side_by_side(run, tmp_path):
    content = {"names": ["x"], "episodes": 2, "frames": 9, "constant": [0.5]}
    for folder, error in ((run / "evaluation", 0.25), (tmp_path / "other", 0.125)):
        folder.mkdir(exist_ok=True)
        held_out = {**content, "errors": [[error], [None]]}
        (folder / "held_out.json").write_text(json.dumps(held_out), encoding="utf-8")
    folders = [run, tmp_path / "other"]
    records = [read_run(folder) for folder in folders]
    assert {line.name: line.texts for line in held_out_errors(records)} == {
        "x, step 1": ["0.25", "0.125"],
        "x, step 2": ["-", "-"],
        "x, constant": ["0.5", "0.5"],
    }
    text = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<h3>Held-out episodes</h3>" in text


def test_a_note_stands_where_nothing_was_measured(tmp_path):
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        run.mkdir()
        (run / "recipe.toml").write_text("[train]\nseed = 1\n", encoding="utf-8")
    text = write_comparison(runs, tmp_path / "c.html").read_text(encoding="utf-8")
    assert text.count('class="note"') == 5
    assert "The recipes agree in all 1 keys" in text


def test_runs_of_one_name_are_told_apart_by_their_paths(pristine_run, run):
    assert run_names([read_run(pristine_run), read_run(run)]) == [str(pristine_run), str(run)]
    assert run_names([read_run(run)]) == ["kosmos_lstm"]


def test_a_damaged_run_is_named(pristine_run, run, tmp_path):
    (run / "metrics.jsonl").write_text("?\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics.jsonl:1"):
        write_comparison([pristine_run, run], tmp_path / "compare.html")
    assert not (tmp_path / "compare.html").exists()
