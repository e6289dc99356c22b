"""Whole sweeps, whose runs are those of a stand-in."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from core.errors import ConfigError, DataError
from core.report.sweep_page import results_table
from core.report.sweep_results import SweepResults
from core.sweep.sweep import PAGE, RESULTS
from core.system.locks import LockedError, locked

Run = Callable[..., SweepResults]
RATES = {"grid": {"train.learning_rate": [1e-3, 5e-3]}, "seeds": 2}


def summary(sweep: Path) -> dict[str, Any]:
    """Return sweep.json without the times, which no two sweeps share."""
    content = json.loads((sweep / RESULTS).read_text())
    assert all(variant.pop("time") for variant in content["variants"])
    return content


def steps_done(sweep: Path) -> dict[str, list[str]]:
    """Return the steps that each run has done, in their order."""
    return {
        str(file.parent.relative_to(sweep)): file.read_text().split()
        for file in sorted(sweep.rglob("steps"))
    }


def test_every_variant_is_run_with_every_seed(run: Run, tmp_path: Path) -> None:
    results = run(**RATES)
    names = ["learning_rate=0.001", "learning_rate=0.005"]
    assert [variant.name for variant in results.variants] == names
    assert results.missing == []
    folders = {f"{name}/seed_{seed}": list("12345") for name in names for seed in (0, 1)}
    assert steps_done(tmp_path / "sweep") == folders
    page = (tmp_path / "sweep" / PAGE).read_text()
    assert "<h1>sweep</h1>" in page
    first, second = summary(tmp_path / "sweep")["variants"]
    assert first["values"].keys() == second["values"].keys() == {"0", "1"}
    assert (first["p"], second["parameters"]) == (None, 100)
    assert 0 <= second["p"] <= 1
    assert second["overrides"] == ["train.learning_rate=0.005"]


def test_the_same_call_does_nothing_again(run: Run, tmp_path: Path) -> None:
    run(**RATES)
    before = summary(tmp_path / "sweep"), (tmp_path / "sweep" / PAGE).read_bytes()
    console = Console(file=StringIO(), width=200)
    run(console, **RATES)
    assert "4 of 4 runs are finished" in console.file.getvalue()
    assert all(steps == list("12345") for steps in steps_done(tmp_path / "sweep").values())
    assert before == (summary(tmp_path / "sweep"), (tmp_path / "sweep" / PAGE).read_bytes())


def test_a_run_that_fails_stops_no_other(run: Run, tmp_path: Path) -> None:
    rates = {"grid": {"train.learning_rate": [0.5, 5e-3]}, "seeds": 2}
    results = run(**rates)
    log = tmp_path / "sweep" / "learning_rate=0.5" / "seed_0" / "output.log"
    assert results.missing == [
        f"learning_rate=0.5, seed {seed}: step 3: not finite: loss = nan "
        f"({str(log).replace('seed_0', f'seed_{seed}')})"
        for seed in (0, 1)
    ]
    finished, failed = results.variants
    assert (finished.name, len(finished.values), failed.value) == ("learning_rate=0.005", 2, None)
    page = (tmp_path / "sweep" / PAGE).read_text()
    assert "2 runs have no result" in page
    assert "not finite" in page
    console = Console(file=StringIO(), width=200)
    console.print(results_table(results))
    assert "learning_rate=0.5" in console.file.getvalue()
    # the same call tries them again, from where they were
    run(**rates)
    assert steps_done(tmp_path / "sweep")["learning_rate=0.5/seed_0"] == ["1", "2"]


def test_what_is_added_is_run_and_what_is_dropped_stays(run: Run, tmp_path: Path) -> None:
    run(grid={"train.learning_rate": [1e-3, 5e-3]}, seeds=1)
    console = Console(file=StringIO(), width=200)
    results = run(console, grid={"train.learning_rate": [5e-3, 7e-3]}, seeds=2)
    shown = console.file.getvalue()
    assert "added variants: learning_rate=0.007" in shown
    assert "added seeds: 1" in shown
    assert "variants no longer in the sweep: learning_rate=0.001; their runs stay" in shown
    assert [v.name for v in results.variants] == ["learning_rate=0.005", "learning_rate=0.007"]
    assert (tmp_path / "sweep" / "learning_rate=0.001" / "seed_0" / "report.html").exists()


def test_a_study_goes_on_in_rounds(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs optuna: pip install -e '.[optuna]'")
    ranges = {"train.learning_rate": [1e-3, 5e-3, 0.5], "train.batch_size": [32, "many"]}
    search = {"method": "optuna", "trials": 6, "round": 2, "ranges": ranges}
    results = run(search=search, seeds=1)
    names = [variant.name for variant in results.variants]
    assert 2 <= len(set(names)) == len(names)
    for variant in results.variants:
        if "many" in variant.name:
            assert "train.batch_size: expected" in variant.runs.missing[0]
        elif "0.5" in variant.name:
            assert "not finite" in variant.runs.missing[0]
        else:
            assert variant.values.keys() == {0}
    before = summary(tmp_path / "sweep"), steps_done(tmp_path / "sweep")
    run(search=search, seeds=1)
    assert before == (summary(tmp_path / "sweep"), steps_done(tmp_path / "sweep"))


def test_a_variant_that_has_changed_is_refused(run: Run, recipe: Path, tmp_path: Path) -> None:
    run(variant=[{"name": "short"}, {"name": "other"}], seeds=1)
    recipe.write_text(recipe.read_text().replace("hidden_size = 32", "hidden_size = 64"))
    with pytest.raises(ConfigError) as error:
        run(variant=[{"name": "short", "overrides": ["train.steps=9"]}], seeds=2)
    assert error.value.mistakes[:2] == [
        "short: policy_head.hidden_size was 32, and is now 64",
        "short: train.steps was 5, and is now 9",
    ]
    assert f"remove what is there: {tmp_path / 'sweep' / 'short'}" in error.value.mistakes[2]
    assert len(error.value.mistakes) == 3
    # under another name it is another variant
    run(variant=[{"name": "longer", "overrides": ["train.steps=9"]}], seeds=1)


def test_a_damaged_plan_of_a_run_is_one_line(run: Run, tmp_path: Path) -> None:
    run(seeds=1)
    folder = tmp_path / "sweep" / "base" / "seed_0"
    (folder / "planned.toml").write_bytes(b"\xff")
    with pytest.raises(DataError, match=f"not UTF-8 text; remove {folder}, so that the run begins"):
        run(seeds=1)


def test_keys_that_change_no_result_may_change(run: Run) -> None:
    run(variant=[{"name": "one"}], seeds=1)
    run(variant=[{"name": "one"}], seeds=1, overrides=["train.loggers=[]", "train.keep_last=1"])


def test_other_threads_are_refused(run: Run) -> None:
    run(seeds=1)
    with pytest.raises(ConfigError, match=r"threads: the runs in .* compute with 1"):
        run(seeds=1, threads=2)


def test_all_mistakes_are_told_before_any_run(run: Run, tmp_path: Path) -> None:
    variants = [
        {"name": "one", "overrides": ["train.stps=9"]},
        {"name": "two", "overrides": ["train.stps=9", "policy_head.layers=none"]},
    ]
    with pytest.raises(ConfigError) as error:
        run(variant=variants)
    first, second = error.value.mistakes
    assert "train.stps: unknown key; did you mean 'steps'? (in one, two)" in first
    assert "policy_head.layers" in second
    assert second.endswith("(in two)")
    assert not list((tmp_path / "sweep").glob("*/seed_*"))


def test_two_sweeps_do_not_share_a_folder(run: Run, tmp_path: Path) -> None:
    with locked(tmp_path / "sweep"), pytest.raises(LockedError):
        run(seeds=1)


def test_demonstrations_are_recorded_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.sweep import sweep as sweep_module

    recorded = []
    monkeypatch.setattr(sweep_module, "prepare", lambda recipe, console: recorded.append(recipe))
    run(**RATES, overrides=["demonstrations={episodes=3}"])
    assert len(recorded) == 1
    run(**RATES, overrides=["demonstrations={episodes=3}"])
    assert len(recorded) == 1, "all runs are finished, and need none"


def test_different_demonstrations_in_one_store_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"records other demonstrations into .* than episodes=3"):
        run(grid={"demonstrations.episodes": [3, 4]})
    with pytest.raises(ConfigError, match="baseline: no variant is called 'lsm'"):
        run(baseline="lsm")
