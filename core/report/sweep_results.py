"""What the variants of a sweep have reached: means over seeds, differences from the baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from core.report.over_seeds import Comparison, Estimate, compare_pairs, estimate
from core.report.run_files import RunRecord, read_run
from core.report.run_metrics import Series, joint_table
from core.report.wording import percent, significant
from core.rollout.results import Evaluation

Number = int | float


@dataclass(frozen=True)
class Metric:
    """A figure by which variants are compared.

    key: its name in sweep.json.
    name: what tables call it.
    of: returns the figure of a run; None if it was not measured.
    write: how it is written.
    """

    key: str
    name: str
    of: Callable[[RunRecord], float | None]
    write: Callable[[float], str]
    higher_is_better: bool = True


def _success(record: RunRecord) -> float | None:
    tried = record.evaluation is not None and record.evaluation.by_task()
    return record.evaluation.mean() if record.evaluation and tried else None


def _chain_length(record: RunRecord) -> float | None:
    return record.evaluation.chain_length if record.evaluation else None


def _error(record: RunRecord) -> float | None:
    series = (record.metrics or {}).get("validation/error")
    return series.last if series else None


SUCCESS = Metric("success", "success", _success, percent)
ERROR = Metric(
    "validation_error",
    "error on held-out episodes",
    _error,
    significant,
    higher_is_better=False,
)
# the first that any run has measured is the one by which variants are compared
METRICS = (
    SUCCESS,
    Metric("chain_length", "average chain length", _chain_length, lambda x: f"{x:.2f}"),
    ERROR,
)


@dataclass(frozen=True)
class VariantRuns:
    """The finished runs of a variant, which differ in their seed alone.

    overrides: how the variant changes its recipe.
    folders: {seed: folder of the run}.
    missing: {seed: why its run has no result}.
    """

    name: str
    recipe: str
    overrides: Sequence[str]
    folders: Mapping[int, Path]
    missing: Mapping[int, str]

    @cached_property
    def records(self) -> Mapping[int, RunRecord]:
        """The contents of the runs' files; raises DataError if one is damaged."""
        return {seed: read_run(folder) for seed, folder in self.folders.items()}


@dataclass(frozen=True)
class VariantResult:
    """What a variant has reached.

    number: its place in the sweep, from 1, which gives its colour and sign.
    values: {seed: figure by which variants are compared}.
    value: their mean with its interval; None if no run has finished.
    comparison: with the baseline; None for the baseline itself, and with fewer than two seeds.
    error: mean error on held-out episodes.
    parameters, trainable: numbers of weights.
    jerk: mean jerk of the actions while acting; see `core/rollout/smoothness.py`.
    step_seconds: mean time of a training step, validation and checkpoints included.
    latency_ms: mean time in which the policy chooses a chunk for one robot.
    """

    number: int
    runs: VariantRuns
    values: Mapping[int, float]
    value: Estimate | None
    comparison: Comparison | None
    error: Estimate | None
    parameters: int | None
    trainable: int | None
    jerk: float | None
    step_seconds: float | None
    latency_ms: float | None

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.runs.name

    @property
    def attempts(self) -> Evaluation | None:
        """The evaluations of all seeds as one; None if there are none."""
        evaluations = [r.evaluation for r in self.runs.records.values() if r.evaluation]
        if not evaluations:
            return None
        episodes = [episode for evaluation in evaluations for episode in evaluation.episodes]
        chains = [chain for evaluation in evaluations for chain in evaluation.chains]
        return replace(evaluations[0], episodes=episodes, chains=chains)

    def curve(self, key: str) -> Series | None:
        """Return a measured series as a mean over the seeds, at the steps that all have."""
        series = [(record.metrics or {}).get(key) for record in self.runs.records.values()]
        known = [s for s in series if s is not None]
        if not known:
            return None
        steps = sorted(set.intersection(*(set(s.steps.tolist()) for s in known)))
        values = np.array([s.values[np.isin(s.steps, steps)] for s in known])
        return Series(np.array(steps), values.mean(axis=0)) if steps else None


@dataclass(frozen=True)
class SweepResults:
    """What a sweep has reached.

    metric: by which the variants are compared; None if no run has measured anything.
    baseline: the variant with which the others are compared.
    """

    metric: Metric | None
    baseline: str
    variants: Sequence[VariantResult]

    @property
    def missing(self) -> list[str]:
        """A line for each run without a result."""
        return [
            f"{variant.name}, seed {seed}: {reason}"
            for variant in self.variants
            for seed, reason in variant.runs.missing.items()
        ]


def summarize(variants: Sequence[VariantRuns], baseline: str) -> SweepResults:
    """Read the runs of all variants, and compare them.

    The baseline comes first, and variants without any finished run come last.

    Raises DataError, naming the file, if a file is damaged.
    """
    variants = sorted(variants, key=lambda v: (not v.folders, v.name != baseline))
    records = [record for variant in variants for record in variant.records.values()]
    known = (m for m in METRICS if any(m.of(record) is not None for record in records))
    metric = next(known, None)
    values = {variant.name: _values(variant, metric) for variant in variants}
    comparisons = _comparisons(values, baseline)
    return SweepResults(
        metric,
        baseline,
        [
            _result(number, variant, values[variant.name], metric, comparisons)
            for number, variant in enumerate(variants, 1)
        ],
    )


def _values(variant: VariantRuns, metric: Metric | None) -> dict[int, float]:
    if metric is None:
        return {}
    by_seed = {seed: metric.of(record) for seed, record in variant.records.items()}
    return {seed: value for seed, value in by_seed.items() if value is not None}


def _comparisons(values: Mapping[str, Mapping[int, float]], baseline: str) -> dict[str, Comparison]:
    """Compare each variant with the baseline at the seeds that both have finished."""
    first, pairs = values[baseline], {}
    for name, by_seed in values.items():
        common = sorted(first.keys() & by_seed.keys())
        if name != baseline and len(common) > 1:
            pairs[name] = [first[s] for s in common], [by_seed[s] for s in common]
    return {comparison.key: comparison for comparison in compare_pairs(pairs)}


def _result(
    number: int,
    runs: VariantRuns,
    values: Mapping[int, float],
    metric: Metric | None,
    comparisons: Mapping[str, Comparison],
) -> VariantResult:
    records = list(runs.records.values())
    tables = [table for r in records if (table := joint_table(r.metrics or {}))]
    errors = [error for record in records if (error := _error(record)) is not None]
    latencies = [r.evaluation.time.get("latency_ms") for r in records if r.evaluation]
    result = VariantResult(
        number=number,
        runs=runs,
        values=values,
        value=estimate(list(values.values())) if values else None,
        comparison=comparisons.get(runs.name),
        error=estimate(errors) if errors else None,
        parameters=tables[0].parameters if tables else None,
        trainable=tables[0].trainable if tables else None,
        jerk=_mean([_jerk(record) for record in records]),
        step_seconds=_mean([_step_seconds(record) for record in records]),
        latency_ms=_mean(latencies),
    )
    return replace(result, value=_with_interval(result, metric)) if values else result


def _with_interval(result: VariantResult, metric: Metric | None) -> Estimate | None:
    """Return the mean with an interval also where the seeds have no spread, and within 0 to 1.

    That of all attempts is then taken: for success of one seed, or equal success of all.
    """
    value, attempts = result.value, result.attempts
    if value is None or metric is not SUCCESS:
        return value
    if value.low == value.high and attempts is not None:
        return Estimate(value.mean, *attempts.overall().interval)
    return Estimate(value.mean, max(0.0, value.low), min(1.0, value.high))


def _jerk(record: RunRecord) -> float | None:
    jerk = record.evaluation.jerk() if record.evaluation else None
    return jerk.mean if jerk else None


def _step_seconds(record: RunRecord) -> float | None:
    """Return the time of a training step, as the run has measured it last."""
    rate = (record.metrics or {}).get("time/samples_per_second")
    batch = record.settings.get("train", {}).get("batch_size")
    return batch / rate.last if rate and rate.last and isinstance(batch, int) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def to_json(results: SweepResults) -> dict[str, Any]:
    """Return plain data for sweep.json; what is below `time` differs between equal sweeps."""
    return {
        "format": "joinery-sweep",
        "version": 1,
        "metric": results.metric.key if results.metric else None,
        "baseline": results.baseline,
        "variants": [_variant_to_json(variant) for variant in results.variants],
    }


def _variant_to_json(result: VariantResult) -> dict[str, Any]:
    comparison = result.comparison
    return {
        "name": result.name,
        "recipe": result.runs.recipe,
        "overrides": list(result.runs.overrides),
        "values": {str(seed): value for seed, value in result.values.items()},
        "missing": {str(seed): reason for seed, reason in result.runs.missing.items()},
        "value": _interval_to_json(result.value),
        "difference": _interval_to_json(comparison.difference) if comparison else None,
        "p": comparison.p if comparison else None,
        "validation_error": _interval_to_json(result.error),
        "parameters": result.parameters,
        "trainable": result.trainable,
        "jerk": result.jerk,
        "time": {"step_seconds": result.step_seconds, "latency_ms": result.latency_ms},
    }


def _interval_to_json(value: Estimate | None) -> dict[str, Any] | None:
    return {"mean": value.mean, "interval": [value.low, value.high]} if value else None
