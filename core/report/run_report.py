"""Writes the page about one run: what the policy learned, and what it does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.report import figures
from core.report.figures import Chart
from core.report.page import flatten, render, write_page
from core.report.run_conditions import condition_groups
from core.report.run_files import PredictedEpisode, read_predictions, read_run
from core.report.run_films import films_by_task
from core.report.run_held_out import held_out_table
from core.report.run_metrics import (
    Metrics,
    joint_table,
    loss_terms,
    series_below,
    training_notes,
)
from core.report.run_scores import score_facts, score_table
from core.report.run_success import (
    Column,
    chain_table,
    condition_columns,
    headline,
    success_table,
)
from core.rollout.results import Evaluation


@dataclass(frozen=True)
class ChunkCharts:
    """A held-out episode, and a chart of predicted chunks for each action dimension."""

    episode: PredictedEpisode
    charts: Sequence[Chart]


def write_report(run: Path, path: Path | None = None) -> Path:
    """Write a page from the files in a folder, and return its path.

    run: the folder of a run, or that of an evaluation.
    path: the page; default: `report.html` in the folder.

    The same files give the same page. Raises DataError, naming the file, if a file is damaged. An
    older report then stays as it was.
    """
    record = read_run(run)
    evaluation, metrics = record.evaluation, record.metrics or {}
    columns = condition_columns(evaluation) if evaluation else []
    films = films_by_task(run, list(evaluation.by_task()) if evaluation else [])
    values = {
        "run": record,
        "evaluation": evaluation,
        "conditions": condition_groups(evaluation) if evaluation else {},
        "facts": [*headline(evaluation), *score_facts(evaluation)] if evaluation else [],
        "provenance": provenance(evaluation) if evaluation else [],
        "unfinished": unfinished_attempts(evaluation) if evaluation else [],
        "success": success_table(columns),
        "ended": evaluation.ends()["ended"] if evaluation else 0,
        "scores": score_table(columns),
        "chains": chain_table([Column("policy", 1, evaluation)]) if evaluation else None,
        "films": films,
        "has_gripper": any(
            film.gripper for pair in films for film in (pair.success, pair.failure) if film
        ),
        "notes": training_notes(metrics),
        "curves": loss_charts(metrics),
        "gradients": part_charts(metrics),
        "joint": joint_table(metrics),
        "held_out": held_out_table(record.results),
        "chunks": [
            ChunkCharts(episode, figures.action_chunks(episode))
            for episode in read_predictions(run)
        ],
    }
    path = path or run / "report.html"
    write_page(path, render("report.html", values))
    return path


def provenance(evaluation: Evaluation) -> list[str]:
    """Name the environment, the training step of the checkpoint, and the libraries' versions."""
    environment, policy = evaluation.environment, evaluation.policy
    step = [f"step {policy['step']}"] if "step" in policy else []
    versions = [
        f"{name.removeprefix('versions.')} {value}"
        for name, value in flatten(environment).items()
        if name.startswith("versions.")
    ]
    return [str(environment.get("name", "")), *step, *versions]


def unfinished_attempts(evaluation: Evaluation) -> list[str]:
    """Describe the attempts and chains that the environment could not finish, and why."""
    attempts = [
        (f"{attempt.task}, {attempt.condition}", attempt.seed, attempt.failure)
        for attempt in evaluation.episodes
    ]
    chains = [("chain", chain.seed, chain.failure) for chain in evaluation.chains]
    return [
        f"{name}, seed {seed}: {failure}" for name, seed, failure in (*attempts, *chains) if failure
    ]


def loss_charts(metrics: Metrics) -> list[Chart]:
    """Draw the loss, its terms and the error on held-out episodes, as far as measured."""
    loss = {"loss": metrics["loss"]} if "loss" in metrics else {}
    charts = [
        figures.curves("Training loss", loss, logarithmic=True),
        figures.curves("Terms of the loss", loss_terms(metrics), logarithmic=True),
    ]
    if error := metrics.get("validation/error"):
        by_task = series_below(metrics, "validation/error/")
        constant = metrics.get("validation/constant")
        charts.append(figures.validation_curves(error, constant, by_task))
    return [chart for chart in charts if chart]


def part_charts(metrics: Metrics) -> list[Chart]:
    """Draw the gradient norm and the relative update of each part over the steps."""

    def by_part(key: str) -> Metrics:
        return {
            name.removesuffix(f"/{key}").replace("_", " "): series
            for name, series in series_below(metrics, "joint/").items()
            if name.endswith(f"/{key}") and "/gradient_of/" not in name
        }

    charts = (
        figures.curves("Gradient norm of each part", by_part("gradient_norm"), logarithmic=True),
        figures.curves("Relative update of each part", by_part("update"), logarithmic=True),
    )
    return [chart for chart in charts if chart]
