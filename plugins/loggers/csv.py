"""One table of all figures, for spreadsheets and data frames."""

import csv
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from core import Register, hookimpl, open_to_append, written_aside


@dataclass(frozen=True)
class CSVConfig:
    """A table of comma-separated values; without keys."""


class CSVLogger:
    """Writes RUN/metrics.csv: a column for each figure, a row for each set of figures.

    Fabric's own logger of this name deletes the table of the interrupted run when a run resumes.

    run: the run's folder.
    first: number of steps done before; rows of later steps, which an interrupted run wrote, are
        dropped, since the resumed run writes them again.
    """

    def __init__(self, _: CSVConfig, *, run: Path, first: int) -> None:
        self.path = run / "metrics.csv"
        self.columns: list[str] = ["step"]
        rows = self._rows() if first else []
        self._write([row for row in rows if int(row["step"]) <= first])

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Write nothing, because RUN/recipe.toml has the recipe."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Append a row; a figure that is new adds a column, so the table is written again."""
        if new := [name for name in metrics if name not in self.columns]:
            self.file.close()
            rows = self._rows()
            self.columns += new
            self._write(rows)
        self.table.writerow({"step": step, **metrics})

    def save(self) -> None:
        """Write buffered rows to the disk."""
        self.file.flush()

    def finalize(self, status: str) -> None:  # noqa: ARG002
        """Close the table."""
        self.file.close()

    def _rows(self) -> list[dict[str, str]]:
        """Return the table's whole rows, and note its columns."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            self.columns = list(reader.fieldnames or self.columns)
            # a process that was killed may have left half a row, which has fewer cells
            return [row for row in reader if None not in row.values()]

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Replace the table by these rows, and open it to append others."""
        with (
            written_aside(self.path) as aside,
            aside.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(rows)
        self.file = TextIOWrapper(open_to_append(self.path), newline="", encoding="utf-8")
        self.table = csv.DictWriter(self.file, self.columns)


@hookimpl
def register_loggers(register: Register) -> None:
    """Register "csv"."""
    register("csv", CSVConfig, CSVLogger)
