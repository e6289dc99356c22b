"""Writes the page that compares several runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.report import figures
from core.report.figures import Chart
from core.report.page import Fact, flatten, render, write_page
from core.report.run_conditions import Line, differing_conditions
from core.report.run_differences import difference_table
from core.report.run_files import RunRecord, read_run
from core.report.run_held_out import HeldOutTable, held_out_table
from core.report.run_metrics import JointRow, Series, joint_table
from core.report.run_scores import score_facts, score_table
from core.report.run_success import Column, chain_table, headline, success_table
from core.report.wording import significant
from core.rollout.results import Evaluation

MISSING = "-"


def write_comparison(runs: Sequence[Path], path: Path) -> Path:
    """Write a page about several runs from the files in their folders, and return its path.

    runs: folders of runs or of evaluations.

    The same files give the same page. Raises DataError, naming the file, if a file is damaged.
    """
    records = [read_run(run) for run in runs]
    names = run_names(records)
    columns = [
        Column(name, number, record.evaluation)
        for number, (name, record) in enumerate(zip(names, records, strict=True), 1)
        if record.evaluation
    ]
    evaluations = [record.evaluation for record in records]
    same, differences = recipe_differences(records)
    values = {
        "names": names,
        "overview": overview(records),
        "success": success_table(columns),
        "verdicts": difference_table(names, evaluations),
        "scores": score_table(columns),
        "chains": chain_table(columns),
        "hints": [(c.name, hint) for c in columns for hint in c.evaluation.hints],
        "conditions": differing_conditions(evaluations),
        "evaluated": len(columns),
        "curves": loss_charts(names, records),
        "held_out": held_out_errors(records),
        "recipes": sum(record.recipe is not None for record in records),
        "one_recipe": _share_a_recipe(records),
        "same": same,
        "differences": differences,
        "components": differing_components(records),
        "sizes": part_sizes(records),
    }
    write_page(path, render("compare.html", values))
    return path


def run_names(records: Sequence[RunRecord]) -> list[str]:
    """Return a name for each run: its folder's name, or the whole path if two names are equal."""
    names = [record.name for record in records]
    return [
        str(record.folder) if names.count(record.name) > 1 else record.name for record in records
    ]


def overview(records: Sequence[RunRecord]) -> dict[str, list[Fact | None]]:
    """Return {name of a fact: its value for each run}; None for a run that did not measure it.

    The facts are the success rate, the success rate under each control (blank images, for
    example), the best score, the average chain length, and the errors of the policy and of
    the best constant action per task on held-out episodes. If an evaluation was interrupted, the
    first row says so.
    """
    error_names = {
        "validation/error": "error on held-out episodes",
        "validation/constant": "error of the best constant action per task",
    }
    rows: dict[str, list[Fact | None]] = {}
    if any(record.evaluation and record.evaluation.interruption for record in records):
        rows["evaluation"] = [_completeness(record.evaluation) for record in records]
    for number, record in enumerate(records):
        facts = headline(record.evaluation) if record.evaluation else []
        facts += score_facts(record.evaluation) if record.evaluation else []
        metrics = record.metrics or {}
        for key, name in error_names.items():
            if key in metrics:
                facts.append(Fact(name, significant(metrics[key].last)))
        for fact in facts:
            rows.setdefault(fact.name, [None] * len(records))[number] = fact
    return rows


def _completeness(evaluation: Evaluation | None) -> Fact | None:
    """Say whether all planned attempts have ended."""
    if evaluation is None:
        return None
    interrupted, _, how_far = evaluation.interruption.partition(" ")
    return Fact("evaluation", interrupted or "complete", how_far)


def loss_charts(names: Sequence[str], records: Sequence[RunRecord]) -> list[Chart]:
    """Draw one chart of the loss and one of the held-out error, each with a curve per run."""

    def by_run(key: str) -> dict[str, Series | None]:
        return {
            name: (record.metrics or {}).get(key)
            for name, record in zip(names, records, strict=True)
        }

    charts = (
        figures.curves("Training loss", by_run("loss"), logarithmic=True),
        figures.curves("Error on held-out episodes", by_run("validation/error")),
    )
    return [chart for chart in charts if chart]


def held_out_errors(records: Sequence[RunRecord]) -> list[Line]:
    """Return rows of errors on held-out episodes, for runs that were compared with recordings.

    For each action dimension there are the errors of a chunk's first and last action, and that of
    the best constant action.
    """
    by_run = [_held_out_cells(held_out_table(record.results)) for record in records]
    names = dict.fromkeys(name for errors in by_run for name in errors)
    return [Line(name, [errors.get(name, MISSING) for errors in by_run]) for name in names]


def _held_out_cells(table: HeldOutTable | None) -> dict[str, str]:
    if table is None:
        return {}
    last = len(table.headings) - 1  # after the steps of the chunk comes the constant action
    shown = sorted({0, last - 1, last})
    return {
        f"{name}, {table.headings[column]}": cells[column]
        for name, cells in table.rows
        for column in shown
    }


def recipe_differences(records: Sequence[RunRecord]) -> tuple[int, list[Line]]:
    """Return the number of keys on which all recipes agree, and a row for each key that differs.

    Runs without a recipe are left out of the comparison.
    """
    recipes = [
        flatten(record.settings) if record.recipe is not None else None for record in records
    ]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe or {})
    lines = [
        Line(key, [MISSING if recipe is None else recipe.get(key, MISSING) for recipe in recipes])
        for key in keys
    ]
    known = [number for number, recipe in enumerate(recipes) if recipe is not None]
    different = [line for line in lines if len({line.texts[number] for number in known}) > 1]
    return len(lines) - len(different), different


def differing_components(records: Sequence[RunRecord]) -> list[Line]:
    """Return a row for each part whose component, package or version differs between runs.

    Runs that did not record them, as those of earlier versions, do not count as different.
    """
    known = [number for number, record in enumerate(records) if record.components]
    sections = dict.fromkeys(section for record in records for section in record.components)
    lines = [
        Line(
            section.replace("_", " "),
            [record.components.get(section, MISSING) for record in records],
        )
        for section in sections
    ]
    return [line for line in lines if len({line.texts[number] for number in known}) > 1]


def _share_a_recipe(records: Sequence[RunRecord]) -> bool:
    """Return whether all are evaluations of runs with the same recipe.toml, as far as is known."""
    policies = [record.evaluation.policy if record.evaluation else {} for record in records]
    checksums = {str(policy.get("recipe_sha256", "")) for policy in policies}
    return len(checksums) == 1 and "" not in checksums


def part_sizes(records: Sequence[RunRecord]) -> list[Line]:
    """Return rows that count parameters: one per part, one for all, one for all that train."""
    tables = [joint_table(record.metrics or {}) for record in records]
    parts: list[Mapping[str, JointRow]] = [
        {row.part: row for row in table.rows} if table else {} for table in tables
    ]
    lines = []
    for part in dict.fromkeys(part for rows in parts for part in rows):
        texts = []
        for rows in parts:
            row = rows.get(part)
            frozen = " frozen" if row and row.trains == "frozen" else ""
            texts.append(f"{row.parameters:,}{frozen}" if row else MISSING)
        lines.append(Line(part.replace("_", " "), texts))
    if lines:
        totals = [f"{table.parameters:,}" if table else MISSING for table in tables]
        trainable = [f"{table.trainable:,}" if table else MISSING for table in tables]
        lines += [Line("all", totals), Line("of which train", trainable)]
    return lines
