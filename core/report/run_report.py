"""One page that shows what a run learned and did."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.report.figures import Chart
    from core.report.film_strips import Film
    from core.report.run_files import PredictedEpisode
    from core.report.run_metrics import Metrics
    from core.rollout.results import Evaluation

FILM_BYTES = (
    6_500_000  # of all film strips together, before they become text, which is a third longer
)
LONGEST_FILM_BYTES = 300_000  # of one


@dataclass(frozen=True)
class TaskFilms:
    """What was recorded of a task; None: no such attempt."""

    task: str
    success: "Film | None"
    failure: "Film | None"


@dataclass(frozen=True)
class Chunks:
    """A validation episode's action dimensions, drawn."""

    episode: "PredictedEpisode"
    charts: "Sequence[Chart]"


def write_report(run: Path) -> Path:
    """Write RUN/report.html from what lies in the run's folder, and return its path.

    The same files give the same page. Raises DataError, naming the file, where one is damaged; a
    report written
    before then stays as it was.
    """
    from core.report.run_files import read_predictions, read_run
    from core.report.run_metrics import joint_table
    from core.report.page import render, write_page
    from core.report.run_success import Column, chain_table, condition_columns, headline, success_table

    record = read_run(run)
    evaluation, metrics = record.evaluation, record.metrics or {}
    columns = condition_columns(evaluation) if evaluation else []
    values = {
        "run": record,
        "evaluation": evaluation,
        "facts": headline(evaluation) if evaluation else [],
        "where": where(evaluation) if evaluation else [],
        "unfinished": unfinished(evaluation) if evaluation else [],
        "success": success_table(columns),
        "chains": chain_table([Column("policy", 1, evaluation)]) if evaluation else None,
        "films": films(run, list(evaluation.by_task()) if evaluation else []),
        "curves": curves(metrics),
        "gradients": part_curves(metrics),
        "joint": joint_table(metrics),
        "chunks": chunks(read_predictions(run)),
    }
    path = run / "report.html"
    write_page(path, render("report.html", values))
    return path


def where(evaluation: "Evaluation") -> list[str]:
    """In which world and with which versions the policy was measured, and after how many steps of
    training.
    """
    from core.report.page import flat

    environment, policy = evaluation.environment, evaluation.policy
    step = [f"step {policy['step']}"] if "step" in policy else []
    versions = flat(environment).items()
    known = [
        f"{name.removeprefix('versions.')} {value}"
        for name, value in versions
        if name.startswith("versions.")
    ]
    return [str(environment.get("name", "")), *step, *known]


def unfinished(evaluation: "Evaluation") -> list[str]:
    """Attempts and chains that the environment could not finish: which, their seeds and why."""
    attempts = [
        (f"{one.task}, {one.condition}", one.seed, one.failure) for one in evaluation.episodes
    ]
    chains = [("chain", one.seed, one.failure) for one in evaluation.chains]
    return [
        f"{name}, seed {seed}: {failure}" for name, seed, failure in (*attempts, *chains) if failure
    ]


def films(run: Path, tasks: Sequence[str]) -> list[TaskFilms]:
    """The recorded attempts as film strips, in the order of evaluation; one attempt at a time is in
    memory.
    """
    from core.report.film_strips import film
    from core.report.run_files import read_rollout, rollout_files

    paths = rollout_files(run)
    most = min(LONGEST_FILM_BYTES, FILM_BYTES // max(1, len(paths)))
    made: dict[tuple[str, bool], Film] = {}
    for path in paths:
        one = film(read_rollout(path), most)
        made.setdefault((one.task, one.success), one)
    recorded = dict.fromkeys(task for task, _ in made)
    ordered = [task for task in tasks if task in recorded] + [
        task for task in recorded if task not in tasks
    ]
    return [TaskFilms(task, made.get((task, True)), made.get((task, False))) for task in ordered]


def curves(metrics: "Metrics") -> "list[Chart]":
    """The loss, its terms and the error on held-out episodes, as far as they were measured."""
    from core.report import figures
    from core.report.run_metrics import below, loss_terms

    loss = {"loss": metrics["loss"]} if "loss" in metrics else {}
    drawn = [
        figures.curves("Training loss", loss, logarithmic=True),
        figures.curves("Terms of the loss", loss_terms(metrics), logarithmic=True),
    ]
    if error := metrics.get("validation/error"):
        by_task = below(metrics, "validation/error/")
        drawn.append(figures.validation(error, metrics.get("validation/constant"), by_task))
    return [chart for chart in drawn if chart]


def part_curves(metrics: "Metrics") -> "list[Chart]":
    """Gradient norm and relative update of each part over the steps."""
    from core.report import figures
    from core.report.run_metrics import below

    def of_parts(key: str) -> "Metrics":
        found = {
            name: series
            for name, series in below(metrics, "joint/").items()
            if name.endswith(f"/{key}")
        }
        return {
            name.removesuffix(f"/{key}").replace("_", " "): series for name, series in found.items()
        }

    drawn = (
        figures.curves("Gradient norm of each part", of_parts("gradient_norm"), logarithmic=True),
        figures.curves("Relative update of each part", of_parts("update"), logarithmic=True),
    )
    return [chart for chart in drawn if chart]


def chunks(episodes: "Sequence[PredictedEpisode]") -> list[Chunks]:
    """Draw the episodes' action chunks."""
    from core.report.figures import action_chunks

    return [Chunks(episode, action_chunks(episode)) for episode in episodes]
