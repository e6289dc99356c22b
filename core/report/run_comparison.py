"""Several runs side by side on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.report.figures import Chart
    from core.report.run_files import RunRecord
    from core.report.run_metrics import JointRow, Series
    from core.report.run_success import Fact

MISSING = "-"


@dataclass(frozen=True)
class Line:
    """A line of a table: what it is, and a text per run."""

    name: str
    texts: Sequence[str]


def write_comparison(runs: Sequence[Path], path: Path) -> Path:
    """Write one page about several runs from what lies in their folders, and return its path.

    The same files give the same page. Raises DataError, naming the file, where one is damaged.
    """
    from core.report.run_files import read_run
    from core.report.page import render, write_page
    from core.report.run_success import Column, chain_table, success_table

    records = [read_run(run) for run in runs]
    names = names_of(records)
    measured = [
        Column(name, number, record.evaluation)
        for number, (name, record) in enumerate(zip(names, records, strict=True), 1)
        if record.evaluation
    ]
    same, differences = recipe_differences(records)
    values = {
        "names": names,
        "overview": overview(records),
        "success": success_table(measured),
        "chains": chain_table(measured),
        "curves": curves(names, records),
        "recipes": sum(record.recipe is not None for record in records),
        "same": same,
        "differences": differences,
        "sizes": sizes(records),
    }
    write_page(path, render("compare.html", values))
    return path


def names_of(records: "Sequence[RunRecord]") -> list[str]:
    """The runs' names; their paths where two have the same."""
    names = [record.name for record in records]
    return [str(r.folder) if names.count(r.name) > 1 else r.name for r in records]


def overview(records: "Sequence[RunRecord]") -> dict[str, list["Fact | None"]]:
    """{what: a number per run}, as far as it was measured: success, controls, chains, validation."""
    found: dict[str, list[Fact | None]] = {}
    for number, record in enumerate(records):
        for fact in _facts(record):
            found.setdefault(fact.name, [None] * len(records))[number] = fact
    return found


def _facts(record: "RunRecord") -> "list[Fact]":
    from core.report.run_success import Fact, headline

    metrics = record.metrics or {}
    names = {
        "validation/error": "validation error",
        "validation/constant": "best constant action per task",
    }
    errors = [
        Fact(name, f"{metrics[key].last:.4f}") for key, name in names.items() if key in metrics
    ]
    return [*(headline(record.evaluation) if record.evaluation else []), *errors]


def curves(names: Sequence[str], records: "Sequence[RunRecord]") -> "list[Chart]":
    """Loss and validation error of all runs, one over the other."""
    from core.report import figures

    def of_runs(key: str) -> "dict[str, Series | None]":
        return {
            name: (record.metrics or {}).get(key)
            for name, record in zip(names, records, strict=True)
        }

    drawn = (
        figures.curves("Training loss", of_runs("loss"), logarithmic=True),
        figures.curves("Error on held-out episodes", of_runs("validation/error")),
    )
    return [chart for chart in drawn if chart]


def recipe_differences(records: "Sequence[RunRecord]") -> tuple[int, list[Line]]:
    """How many keys agree in all recipes, and those that do not; runs without a recipe are left out
    of the question.
    """
    from core.report.page import flat

    recipes = [flat(record.settings) if record.recipe is not None else None for record in records]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe or {})
    lines = [
        Line(key, [MISSING if r is None else r.get(key, MISSING) for r in recipes]) for key in keys
    ]
    known = [number for number, recipe in enumerate(recipes) if recipe is not None]
    different = [line for line in lines if len({line.texts[number] for number in known}) > 1]
    return len(lines) - len(different), different


def sizes(records: "Sequence[RunRecord]") -> list[Line]:
    """Parameters of each part and of all, and how many of them train."""
    from core.report.run_metrics import joint_table

    tables = [joint_table(record.metrics or {}) for record in records]
    rows: list[Mapping[str, JointRow]] = [
        {row.part: row for row in table.rows} if table else {} for table in tables
    ]
    lines = []
    for part in dict.fromkeys(part for row in rows for part in row):
        texts = [_size(row.get(part)) for row in rows]
        lines.append(Line(part.replace("_", " "), texts))
    if lines:
        lines.append(
            Line("all", [f"{table.parameters:,}" if table else MISSING for table in tables])
        )
        lines.append(
            Line(
                "of which train", [f"{table.trainable:,}" if table else MISSING for table in tables]
            )
        )
    return lines


def _size(row: "JointRow | None") -> str:
    if row is None:
        return MISSING
    return f"{row.parameters:,}" + (" frozen" if row.trains == "frozen" else "")
