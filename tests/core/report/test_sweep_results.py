"""What variants have reached over their seeds, and the page and the table that show it."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from core.errors import DataError
from core.report.sweep_page import results_table, rows_of, write_sweep_page
from core.report.sweep_results import SweepResults, VariantRuns, summarize, to_json
from core.rollout.intervals import Rate
from tests.core.report.factories import make_evaluation, write_evaluation, write_metrics


def make_variant(
    folder: Path, name: str, successes: Sequence[int], rate: float = 0.001
) -> VariantRuns:
    """Return a variant whose runs with seeds 0, 1, ... succeed so often in ten attempts."""
    folders = {}
    for seed, count in enumerate(successes):
        run = folder / name / f"seed_{seed}"
        (run / "evaluation").mkdir(parents=True)
        train = f"seed = {seed}\nbatch_size = 32\nlearning_rate = {rate}\n"
        (run / "recipe.toml").write_text(f"[train]\n{train}")
        write_metrics(run / "metrics.jsonl", ["lift"], 20)
        evaluation = make_evaluation(run.name, ["lift"], chains=0)
        standard = [e for e in evaluation.episodes if e.condition == "standard"]
        episodes = [replace(e, success=n < count, jerk=0.1 * n) for n, e in enumerate(standard)]
        time = {**evaluation.time, "latency_ms": 4.0 + seed}
        write_evaluation(run, replace(evaluation, episodes=episodes, time=time))
        folders[seed] = run
    return VariantRuns(name, "base.toml", (f"train.learning_rate={rate}",), folders, {})


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[VariantRuns]:
    folder = tmp_path_factory.mktemp("sweep")
    return [
        make_variant(folder, "much_better", [9, 10, 8]),
        make_variant(folder, "baseline", [2, 3, 2], rate=0.003),
        make_variant(folder, "equal", [2, 3], rate=0.01),
    ]


@pytest.fixture(scope="module")
def results(variants: list[VariantRuns]) -> SweepResults:
    failed = VariantRuns("failed", "base.toml", (), {}, {0: "not finite", 1: "not finite"})
    return summarize([failed, *variants], "baseline")


def test_variants_are_compared_seed_by_seed(results: SweepResults) -> None:
    assert [v.name for v in results.variants] == ["baseline", "much_better", "equal", "failed"]
    rows = {row.name: row for row in rows_of(results)}
    better = rows["much_better"]
    assert (better.value, better.difference, better.verdict) == ("90%", "+66.7 points", "better")
    assert better.is_sure
    assert better.by_seed == {0: "90%", 1: "100%", 2: "80%"}
    assert rows["baseline"].verdict == "baseline"
    # of the two seeds that both have
    assert (rows["equal"].difference, rows["equal"].p) == ("0 points", "1.000")
    assert (rows["equal"].seeds, rows["failed"].seeds) == (2, 0)
    assert (rows["failed"].value, rows["failed"].verdict) == ("-", "-")


def test_costs_are_means_over_the_seeds(results: SweepResults) -> None:
    baseline, *_ = results.variants
    assert baseline.latency_ms == 5.0
    assert baseline.parameters == baseline.trainable is not None
    assert baseline.step_seconds is not None
    assert rows_of(results)[0].latency == "5 ms"
    assert baseline.jerk == pytest.approx(0.45)
    assert rows_of(results)[0].jerk == "0.45"
    curve = baseline.curve("loss")
    assert curve is not None
    assert len(curve.steps) == 20


def test_seeds_without_spread_have_the_interval_of_their_attempts(tmp_path: Path) -> None:
    results = summarize([make_variant(tmp_path, "same", [10, 10])], "same")
    value = results.variants[0].value
    assert value is not None
    assert (value.low, value.high) == Rate(20, 20).interval
    assert results.variants[0].comparison is None


def test_without_evaluation_the_error_counts_and_less_is_better(tmp_path: Path) -> None:
    variants = [make_variant(tmp_path, name, [5, 5, 5]) for name in ("first", "lower")]
    for number, variant in enumerate(variants):
        for seed, folder in variant.folders.items():
            (folder / "evaluation" / "results.json").unlink()
            error = 0.5 - 0.2 * number + 0.01 * seed * (1 + number)
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": 99, "validation/error": error}) + "\n")
    results = summarize(variants, "first")
    assert results.metric is not None
    assert results.metric.key == "validation_error"
    row = rows_of(results)[1]
    assert (row.value, row.verdict) == ("0.32", "better")
    assert row.difference.startswith("-0.19")
    page = write_sweep_page(results, "offline", tmp_path / "sweep.html").read_text()
    assert "less is better" in page
    assert "No run was evaluated on single tasks." in page


def test_the_page_shows_all(results: SweepResults, tmp_path: Path) -> None:
    path = write_sweep_page(results, "heads", tmp_path / "sweep.html")
    page = path.read_text()
    headings = ["Results", "Success", "Curves", "Conditions", "Recipes", "Sizes"]
    assert re.findall("<h2>(.+?)</h2>", page) == headings
    assert "2 runs have no result, and are left out: failed, seed 0: not finite" in page
    assert "Seed by seed" in page
    assert "train.<wbr>learning_<wbr>rate" in page
    assert "train.<wbr>seed" not in page
    # the attempts of all seeds together
    assert page.count("<figcaption>") == 2
    assert write_sweep_page(results, "heads", tmp_path / "again.html").read_text() == page


def test_one_seed_is_compared_by_its_attempts(tmp_path: Path) -> None:
    variants = [make_variant(tmp_path, "one", [1]), make_variant(tmp_path, "two", [9])]
    results = summarize(variants, "one")
    assert rows_of(results)[1].p == "-"
    page = write_sweep_page(results, "single", tmp_path / "sweep.html").read_text()
    assert "There is one seed of training" in page
    assert "8 won, 0 lost" in page


def test_nothing_finished_is_a_page_too(tmp_path: Path) -> None:
    results = summarize([VariantRuns("a", "base.toml", (), {}, {0: "broken"})], "a")
    page = write_sweep_page(results, "nothing", tmp_path / "sweep.html").read_text()
    assert "No run has measured anything yet." in page
    assert results.missing == ["a, seed 0: broken"]
    assert to_json(results)["metric"] is None


def test_the_table_of_the_console(results: SweepResults) -> None:
    console = Console(file=StringIO(), width=200)
    console.print(results_table(results))
    shown = console.file.getvalue()
    assert "compared with baseline" in shown
    assert re.search(r"much_better +3 +90% +\S+ to \S+ +\+66.7 points +0.0\d\d", shown)


def test_plain_data_for_other_programs(results: SweepResults) -> None:
    plain = json.loads(json.dumps(to_json(results)))
    assert (plain["format"], plain["metric"], plain["baseline"]) == (
        "joinery-sweep",
        "success",
        "baseline",
    )
    better = plain["variants"][1]
    assert better["values"] == {"0": 0.9, "1": 1.0, "2": 0.8}
    assert better["difference"]["mean"] == pytest.approx(2 / 3)
    assert better["overrides"] == ["train.learning_rate=0.001"]
    assert better["time"]["latency_ms"] == 5.0
    assert better["jerk"] == pytest.approx(0.45)


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    variant = make_variant(tmp_path, "one", [1])
    (variant.folders[0] / "metrics.jsonl").write_text("?\n")
    with pytest.raises(DataError, match=r"metrics.jsonl:1"):
        summarize([variant], "one")
