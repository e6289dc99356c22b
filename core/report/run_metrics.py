"""Reads metrics.jsonl of a run: its series, and the joint-training table at two steps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path

import numpy as np

from core.errors import DataError

# A series whose name contains no slash is a term of the loss, unless it has one of these names.
NOT_TERMS = ("loss", "gradient_norm", "learning_rate_factor", "skipped", "stopped_early")
# Columns of the joint-training table that hold counts, and columns that hold measurements.
COUNTS = ("parameters", "trainable")
MEASUREMENTS = ("learning_rate", "gradient_norm", "update")


@dataclass(frozen=True)
class Series:
    """The values of a measured quantity over the training steps.

    steps: the steps at which the quantity was measured, in ascending order (n).
    values: the measurements (n).
    """

    steps: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.values[-1])


Metrics = Mapping[str, Series]


@dataclass(frozen=True)
class JointRow:
    """A part's row of the joint-training table.

    first, last: {"learning_rate", "gradient_norm", "update"} at the first and last measurement.
    losses: {term of the loss: norms of its gradient in this part}, at the same two measurements;
        empty if the loss has a single term.
    """

    part: str
    parameters: int
    trainable: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    losses: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def trains(self) -> str:
        """Return "yes" if the part is trained, "frozen" if it is not, "-" without parameters."""
        return "yes" if self.trainable else "frozen" if self.parameters else "-"


@dataclass(frozen=True)
class JointTable:
    """The joint-training table of all parts, measured at two steps.

    The two steps are the same if the run ended before the second measurement.
    """

    first_step: int
    last_step: int
    rows: tuple[JointRow, ...]

    @property
    def terms(self) -> list[str]:
        """The terms of the loss whose gradients were measured one by one."""
        return sorted({term for row in self.rows for term in row.losses})

    @property
    def parameters(self) -> int:
        """The number of parameters of all parts together."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """The number of trained parameters of all parts together."""
        return sum(row.trainable for row in self.rows)


def read_metrics(path: Path) -> dict[str, Series]:
    """Read metrics.jsonl as {name: series}.

    If the last line has no line break, the run was killed while it wrote the line, and the line is
    left out.

    Raises DataError for a line that is not a measurement; the error names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; restore the file") from None
    points: dict[str, dict[int, float]] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
            for name, value in values.items():
                points.setdefault(name, {})[step] = _to_number(name, value)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            raise DataError(
                f"{path}:{number}: no measurement; delete the line, or restore the file"
            ) from None
    series = {}
    for name, by_step in points.items():
        steps = sorted(by_step)
        numbers = np.array([by_step[step] for step in steps], dtype=np.float64)
        series[name] = Series(np.array(steps), numbers)
    return series


def series_below(metrics: Metrics, prefix: str) -> dict[str, Series]:
    """Return the series whose names begin with `prefix`, as {rest of the name: series}."""
    return {
        name.removeprefix(prefix): series
        for name, series in metrics.items()
        if name.startswith(prefix)
    }


def loss_terms(metrics: Metrics) -> dict[str, Series]:
    """Return the terms that add up to the loss; empty if the loss has a single term."""
    terms = {
        name: series
        for name, series in metrics.items()
        if "/" not in name and name not in NOT_TERMS
    }
    return terms if len(terms) > 1 else {}


def training_notes(metrics: Metrics) -> list[str]:
    """Say whether early stopping ended the run, and which steps were skipped."""
    notes = []
    if "stopped_early" in metrics:
        step = metrics["stopped_early"].steps[-1]
        notes.append(f"Early stopping ended the run after step {step}.")
    if "skipped" in metrics:
        steps = metrics["skipped"].steps.tolist()
        listed = ", ".join(map(str, steps[:12])) + (" and later ones" if len(steps) > 12 else "")
        notes.append(
            f"{len(steps)} steps were skipped, because their loss or gradient was not finite: "
            f"{listed}."
        )
    return notes


def joint_table(metrics: Metrics) -> JointTable | None:
    """Return the joint-training table at its first and last measurement; None without any."""
    joint = series_below(metrics, "joint/")
    parts: dict[str, dict[str, Series]] = {}
    for name, series in joint.items():
        part, _, key = name.rpartition("/")
        parts.setdefault(part, {})[key] = series
    rows = tuple(
        JointRow(
            part=part,
            parameters=int(columns["parameters"].last),
            # in stages, a part may train in some steps only
            trainable=int(max(columns["trainable"].values)),
            first={key: float(columns[key].values[0]) for key in MEASUREMENTS},
            last={key: columns[key].last for key in MEASUREMENTS},
            losses={
                term: (float(series.values[0]), series.last)
                for term, series in series_below(joint, f"{part}/gradient_of/").items()
            },
        )
        for part, columns in parts.items()
        if {*COUNTS, *MEASUREMENTS} <= columns.keys()
    )
    if not rows:
        return None
    first_step = min(int(series.steps[0]) for series in joint.values())
    last_step = max(int(series.steps[-1]) for series in joint.values())
    return JointTable(first_step, last_step, rows)


def _to_number(name: str, value: float | None) -> float:
    """Return a value as a float, or as an int if it is a count; null stands for NaN.

    Raises ValueError or OverflowError if a count is not finite, and ValueError if the name holds a
    lone surrogate: half a character, which JSON can hold but UTF-8 cannot.
    """
    name.encode()
    number = nan if value is None else float(value)
    return int(number) if name.rpartition("/")[2] in COUNTS else number
