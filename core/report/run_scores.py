"""Makes the table of scores: a group for each measure, in it a row per task, a column per run.

Below it are the further metrics: a group for each metric, in it a row for each measure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.report.page import Fact
from core.report.run_success import Column
from core.report.wording import significant
from core.rollout.intervals import MeanScore
from core.rollout.results import Evaluation
from core.rollout.scores import MEASURES, Measure


@dataclass(frozen=True)
class ScoreRow:
    """A task, or all attempts: for each column a mean score and its interval as texts, or None."""

    name: str
    cells: Sequence[tuple[str, str] | None]


@dataclass(frozen=True)
class ScoreTable:
    """Mean scores over attempts; groups: {name of a measure: its rows}, in the order shown."""

    columns: Sequence[Column]
    groups: Mapping[str, Sequence[ScoreRow]]


def score_table(columns: Sequence[Column]) -> ScoreTable | None:
    """Return scores and metrics of several evaluations or conditions; None if none has any."""
    columns = [
        column
        for column in columns
        if column.evaluation.mean_score("best", column.condition) is not None
        or column.evaluation.metrics(column.condition)
    ]
    if not columns:
        return None
    groups = {name: _rows(columns, measure) for measure, name in MEASURES.items()}
    groups = {name: rows for name, rows in groups.items() if rows}
    return ScoreTable(columns, {**groups, **_metric_groups(columns)})


def score_facts(evaluation: Evaluation) -> list[Fact]:
    """Return best score and jerk, for the head of a page; without what was not measured."""
    means = {
        MEASURES["best"]: evaluation.mean_score("best"),
        "jerk of the actions": evaluation.jerk(),
    }
    return [
        Fact(name, _texts(mean)[0], f"mean over {mean.attempts} attempts", _texts(mean)[1])
        for name, mean in means.items()
        if mean is not None
    ]


def _rows(columns: Sequence[Column], measure: Measure) -> list[ScoreRow]:
    scores = [column.evaluation.scores(measure, column.condition) for column in columns]
    tasks = list(dict.fromkeys(task for by_task in scores for task in by_task))
    rows = [ScoreRow(task, [_cell(by_task.get(task)) for by_task in scores]) for task in tasks]
    if len(tasks) > 1:
        means = [column.evaluation.mean_score(measure, column.condition) for column in columns]
        rows.append(ScoreRow("all attempts", [_cell(mean) for mean in means]))
    return rows


def _metric_groups(columns: Sequence[Column]) -> dict[str, list[ScoreRow]]:
    metrics = [column.evaluation.metrics(column.condition) for column in columns]
    names = dict.fromkeys(name for by_name in metrics for name in by_name)
    titles = {"best": "highest", "mean": "mean", "sum": "sum"}
    return {
        f"{name}, all attempts": [
            ScoreRow(
                titles[measure], [_cell(means.get(name, {}).get(measure)) for means in metrics]
            )
            for measure in MEASURES
        ]
        for name in names
    }


def _cell(score: MeanScore | None) -> tuple[str, str] | None:
    return None if score is None else _texts(score)


def _texts(score: MeanScore) -> tuple[str, str]:
    """Return a mean and its interval, which is empty for a single attempt."""
    return significant(score.mean), " to ".join(map(significant, score.interval or ()))
