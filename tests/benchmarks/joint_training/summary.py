"""The figures of the study as plain data, and the page and the picture that show them."""

import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from core.report.over_seeds import Comparison, compare, estimate
from tests.benchmarks.joint_training.conditions import BASE, NEW_TASKS, OLD_TASKS, Experiment
from tests.benchmarks.joint_training.runs import (
    PRETRAINING_DEMONSTRATIONS,
    PRETRAINING_STEPS,
    Result,
)

TEMPLATE = Path(__file__).with_name("page.md.jinja")
BUDGETS = {"samples": "as many samples", "compute": "as much processor time"}


def summarise(
    experiments: Sequence[Experiment],
    costs: Mapping[str, Mapping[str, float]],
    results: Sequence[Result],
    pretraining: Sequence[Result],
) -> dict[str, Any]:
    """Return everything that was measured, and what it depends on, as plain data.

    costs: {experiment: {condition: processor time of a step over the baseline's}}.
    pretraining: the runs on the old tasks, one for each seed.
    """
    base = tomllib.loads(BASE.read_text(encoding="utf-8"))["train"]
    return {
        "seeds": [result.plan.seed for result in pretraining],
        "base": BASE.name,
        "base_steps": base["steps"],
        "batch_size": base["batch_size"],
        "old_tasks": list(OLD_TASKS),
        "new_tasks": list(NEW_TASKS),
        "attempts": results[0].evaluation.overall().episodes,
        "versions": {**_versions([*pretraining, *results]), "machine": platform.machine()},
        "pretraining": {
            "demonstrations": PRETRAINING_DEMONSTRATIONS,
            "steps": PRETRAINING_STEPS,
            "success": asdict(estimate([result.success for result in pretraining])),
        },
        "experiments": [
            _summarise_experiment(
                experiment,
                costs[experiment.key],
                [result for result in results if result.plan.experiment == experiment.key],
            )
            for experiment in experiments
        ],
    }


def _versions(results: Sequence[Result]) -> dict[str, str]:
    """Return {package: its version}, or all its versions if the runs had several."""
    of_runs = [result.evaluation.environment["versions"] for result in results]
    return {name: " and ".join(sorted({run[name] for run in of_runs})) for name in of_runs[0]}


def _summarise_experiment(
    experiment: Experiment, costs: Mapping[str, float], results: Sequence[Result]
) -> dict[str, Any]:
    runs: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        runs.setdefault((result.plan.condition, result.plan.budget), []).append(result)
    rates = {key: [result.success for result in of_key] for key, of_key in runs.items()}
    baseline = rates.pop((experiment.baseline.key, "samples"))
    titles = {condition.key: condition.title for condition in experiment.conditions}
    compared = compare(baseline, {"/".join(key): values for key, values in rates.items()})
    return {
        "key": experiment.key,
        "title": experiment.title,
        "demonstrations": experiment.demonstrations,
        "steps": experiment.steps,
        "baseline": {
            "title": experiment.baseline.title,
            "rates": baseline,
            "success": asdict(estimate(baseline)),
        },
        "comparisons": [_row(comparison, titles, costs, runs) for comparison in compared],
        "curves": {
            "/".join(key): {
                "title": titles[key[0]],
                "error": _mean_curve([result.curve for result in of_key]),
            }
            for key, of_key in runs.items()
        },
    }


def _row(
    comparison: Comparison,
    titles: Mapping[str, str],
    costs: Mapping[str, float],
    runs: Mapping[tuple[str, str], Sequence[Result]],
) -> dict[str, Any]:
    """Return a comparison as plain data, with the steps of its runs and the cost of a step.

    The budget is "both" if as many samples need nearly as much processor time as the baseline.
    """
    condition, budget = comparison.key.split("/")
    own_budget = (condition, "compute") in runs
    return {
        "condition": condition,
        "title": titles[condition],
        "budget": budget if own_budget else "both",
        "steps": runs[condition, budget][0].plan.recipe["train"]["steps"],
        "cost": costs[condition],
        "rates": list(comparison.rates),
        "success": asdict(comparison.success),
        "difference": asdict(comparison.difference),
        "p": comparison.p,
        "verdict": comparison.verdict,
    }


def _mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return {step: mean over the seeds}."""
    return {step: fmean(curve[step] for curve in curves) for step in curves[0]}


# ------------------------------------------------------------------------------- page and picture


def write_page(summary: Mapping[str, Any], path: Path, json_name: str, picture: str) -> None:
    """Write the page of the study in Markdown."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"percent": _percent, "points": _points, "p_value": _p_value}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(summary, json_name=json_name, picture=picture, budgets=BUDGETS)
    path.write_text(page + "\n", encoding="utf-8")


def _percent(value: Mapping[str, float]) -> str:
    """Return a mean with its interval, in per cent; the interval is cut at 0 and 100 %."""
    low, high = max(0.0, value["low"]), min(1.0, value["high"])
    return f"{value['mean']:.0%} ({low:.0%} to {high:.0%})"


def _points(value: Mapping[str, float]) -> str:
    """Return a difference with its interval, in percentage points."""
    rounded = [round(100 * value[name]) for name in ("mean", "low", "high")]
    mean, low, high = (f"{points:+d}" if points else "0" for points in rounded)
    return f"{mean} ({low} to {high})"


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def draw_curves(summary: Mapping[str, Any], path: Path) -> None:
    """Draw the validation error over the steps, a panel for each experiment, as SVG."""
    with mpl.rc_context({"svg.hashsalt": "joint training", "font.size": 8}):
        experiments = summary["experiments"]
        figure = Figure(figsize=(9, 7), layout="constrained")
        panels = figure.subplots(len(experiments), 1, squeeze=False)[:, 0]
        for panel, experiment in zip(panels, experiments, strict=True):
            for key, curve in experiment["curves"].items():
                if key.endswith("/compute"):
                    continue
                style = "-" if key == "joint/samples" else "--"
                panel.plot(
                    [int(step) for step in curve["error"]],
                    list(curve["error"].values()),
                    style,
                    label=curve["title"],
                    linewidth=2 if style == "-" else 1.2,
                )
            panel.set(
                title=experiment["title"],
                xlabel="optimiser steps",
                ylabel="validation error",
                yscale="log",
            )
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
