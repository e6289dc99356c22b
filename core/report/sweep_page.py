"""The page and the table of a sweep: its variants side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.report import figures
from core.report.figures import Chart
from core.report.over_seeds import Comparison, Estimate
from core.report.page import render, write_page
from core.report.run_comparison import differing_components, part_sizes, recipe_differences
from core.report.run_conditions import POLICY, Line, differing_conditions
from core.report.run_differences import DifferenceTable, difference_table
from core.report.run_files import RunRecord
from core.report.run_metrics import Series
from core.report.run_success import Column, chain_table, success_table
from core.report.sweep_results import SUCCESS, Metric, SweepResults, VariantResult
from core.report.wording import duration, significant
from core.system.tables import NumberTable

NONE = "-"
SEED = "train.seed"


@dataclass(frozen=True)
class Row:
    """A variant in the words of the page.

    seeds: how many of its runs have finished.
    by_seed: {seed: what the run has reached}.
    difference, p, verdict: against the baseline; `interval_of_difference` is in the same unit.
    """

    number: int
    name: str
    seeds: int
    value: str
    interval: str
    by_seed: Mapping[int, str]
    difference: str
    interval_of_difference: str
    p: str
    verdict: str
    error: str
    parameters: str
    step: str
    latency: str
    jerk: str

    @property
    def is_sure(self) -> bool:
        """Whether the difference is more than chance."""
        return self.verdict in ("better", "worse")


def rows_of(results: SweepResults) -> list[Row]:
    """Return a row for each variant, in the order of the sweep."""
    return [_row(variant, results) for variant in results.variants]


def results_table(results: SweepResults) -> NumberTable:
    """Return the table for the console."""
    metric = results.metric.name if results.metric else "result"
    headings = ["variant", "seeds", metric, "95 % interval", "difference", "p", "parameters"]
    table = NumberTable(
        (*headings, "step", "latency", "jerk"), title=f"compared with {results.baseline}"
    )
    for row in rows_of(results):
        cells = row.value, row.interval, row.difference, row.p, row.parameters
        texts = [str(row.seeds), *cells, row.step, row.latency, row.jerk]
        table.add_row(row.name, *texts)
    return table


def write_sweep_page(results: SweepResults, title: str, path: Path) -> Path:
    """Write the page of a sweep, and return its path; the same files give the same page.

    title: the name of the sweep.

    Raises DataError, naming the file, if a file of a run is damaged.
    """
    shown = [variant for variant in results.variants if variant.runs.records]
    # of each variant one run: the others differ from it in their seed alone
    firsts = [next(iter(variant.runs.records.values())) for variant in shown]
    evaluated = [(variant, variant.attempts) for variant in shown]
    columns = [Column(v.name, v.number, e) for v, e in evaluated if e]
    names = [variant.name for variant in shown]
    same, differences = recipe_differences(firsts)
    values = {
        "title": title,
        "metric": results.metric,
        "baseline": results.baseline,
        "rows": rows_of(results),
        "seeds": sorted({seed for variant in shown for seed in variant.runs.records}),
        "missing": results.missing,
        "names": names,
        "success": success_table(columns),
        "chains": chain_table(columns),
        "single": _single_attempts(names, firsts, results),
        "conditions": _conditions(firsts),
        "curves": _curves(results.variants),
        "same": same,
        "differences": [line for line in differences if line.name != SEED],
        "components": differing_components(firsts),
        "sizes": part_sizes(firsts),
    }
    write_page(path, render("sweep.html", values))
    return path


def _single_attempts(
    names: Sequence[str], firsts: Sequence[RunRecord], results: SweepResults
) -> DifferenceTable | None:
    """Return differences by attempts for a sweep of one seed, where no test over seeds is made."""
    if any(len(variant.values) > 1 for variant in results.variants):
        return None
    return difference_table(names, [record.evaluation for record in firsts])


def _conditions(firsts: Sequence[RunRecord]) -> dict[str, list[Line]]:
    """Return the conditions in which the evaluations differ, without the weights themselves."""
    weights, _ = POLICY["weights_sha256"]
    groups = {
        group: [line for line in lines if line.name != weights]
        for group, lines in differing_conditions([record.evaluation for record in firsts]).items()
    }
    return {group: lines for group, lines in groups.items() if lines}


def _curves(variants: Sequence[VariantResult]) -> list[Chart]:
    """Draw the training loss and the error on held-out episodes, a curve for each variant."""

    def by_variant(key: str) -> dict[str, Series | None]:
        return {variant.name: variant.curve(key) for variant in variants}

    charts = (
        figures.curves("Training loss", by_variant("loss"), logarithmic=True),
        figures.curves("Error on held-out episodes", by_variant("validation/error")),
    )
    return [chart for chart in charts if chart]


def _row(variant: VariantResult, results: SweepResults) -> Row:
    metric = results.metric
    difference, interval_of_difference, p, verdict = _against_baseline(
        variant.comparison, metric, is_baseline=variant.name == results.baseline
    )
    value, interval = _with_interval(variant.value, metric)
    step, latency = variant.step_seconds, variant.latency_ms
    return Row(
        number=variant.number,
        name=variant.name,
        seeds=len(variant.runs.records),
        value=value,
        interval=interval,
        by_seed={s: metric.write(x) for s, x in variant.values.items()} if metric else {},
        difference=difference,
        interval_of_difference=interval_of_difference,
        p=p,
        verdict=verdict,
        error=significant(variant.error.mean) if variant.error else NONE,
        parameters=NONE if variant.parameters is None else f"{variant.parameters:,}",
        step=NONE if step is None else _time_of_step(step),
        latency=NONE if latency is None else f"{significant(latency)} ms",
        jerk=NONE if variant.jerk is None else significant(variant.jerk),
    )


def _time_of_step(seconds: float) -> str:
    return f"{significant(1e3 * seconds)} ms" if seconds < 1 else duration(seconds)


def _with_interval(value: Estimate | None, metric: Metric | None) -> tuple[str, str]:
    if value is None or metric is None:
        return NONE, NONE
    if value.low == value.high:
        return metric.write(value.mean), NONE
    low, high = metric.write(value.low), metric.write(value.high)
    return metric.write(value.mean), f"{low.removesuffix('%')} to {high}"


def _against_baseline(
    comparison: Comparison | None, metric: Metric | None, *, is_baseline: bool
) -> tuple[str, str, str, str]:
    """Return the difference from the baseline, its interval, its p-value and the verdict."""
    if is_baseline:
        return NONE, "", NONE, "baseline"
    if comparison is None or metric is None:
        return NONE, "", NONE, NONE
    bounds = comparison.difference
    unit, factor = (" points", 100.0) if metric is SUCCESS else ("", 1.0)
    mean, low, high = (_signed(factor * x) for x in (bounds.mean, bounds.low, bounds.high))
    p = f"{comparison.p:.3f}" if comparison.p >= 0.001 else "< 0.001"
    verdict = comparison.verdict
    if comparison.is_significant and not metric.higher_is_better:
        verdict = "worse" if verdict == "better" else "better"
    interval = "" if bounds.low == bounds.high else f"{low} to {high}"
    return f"{mean}{unit}", interval, p, verdict


def _signed(number: float) -> str:
    text = f"{number:+.1f}".removesuffix(".0") if abs(number) >= 1 else f"{number:+.2g}"
    return "0" if float(text) == 0 else text
