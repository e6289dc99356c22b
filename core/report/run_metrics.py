"""RUN/metrics.jsonl as series, and the joint-training table as it was first and last measured."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import DataError

NOT_LOSSES = (
    "loss",
    "gradient_norm",
    "learning_rate_factor",
)  # what stands beside the terms of the loss
COUNTS = (
    "parameters",
    "trainable",
)  # the columns of the joint-training table that are whole numbers


@dataclass(frozen=True)
class Series:
    """One number over the steps: steps (n) rising, values (n)."""

    steps: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.values[-1])


Metrics = Mapping[str, Series]


@dataclass(frozen=True)
class JointRow:
    """One part of the joint-training table: {"learning_rate", "gradient_norm", "update"} at both
    ends of the run.
    """

    part: str
    parameters: int
    trainable: int
    first: Mapping[str, float]
    last: Mapping[str, float]

    @property
    def trains(self) -> str:
        """What the table says about it."""
        return "yes" if self.trainable else "frozen" if self.parameters else "-"


@dataclass(frozen=True)
class JointTable:
    """All parts, measured at two steps; they are one if the run ended before the second."""

    first_step: int
    last_step: int
    rows: tuple[JointRow, ...]

    @property
    def parameters(self) -> int:
        """Of all parts together."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Of all parts together."""
        return sum(row.trainable for row in self.rows)


def read_metrics(path: Path) -> dict[str, Series]:
    """Read {name: series}; raises DataError, with its line, for what is no measurement.

    A last line without its end was being written when the run was killed, and is left out.
    """
    points: dict[str, dict[int, float]] = {}
    for number, line in _lines(path):
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
            for name, value in values.items():
                points.setdefault(name, {})[step] = _number(name, value)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            raise DataError(
                f"{path}:{number}: no measurement; delete the line, or restore the file"
            ) from None
    return {name: _series(by_step) for name, by_step in points.items()}


def below(metrics: Metrics, prefix: str) -> dict[str, Series]:
    """The series whose names begin with `prefix`, by the rest of their names."""
    return {
        name.removeprefix(prefix): series
        for name, series in metrics.items()
        if name.startswith(prefix)
    }


def loss_terms(metrics: Metrics) -> dict[str, Series]:
    """The terms that add up to the loss; none where the loss is one term."""
    terms = {
        name: series
        for name, series in metrics.items()
        if "/" not in name and name not in NOT_LOSSES
    }
    return terms if len(terms) > 1 else {}


def joint_table(metrics: Metrics) -> JointTable | None:
    """The table at its first and last measurement; None where it was never measured."""
    parts: dict[str, dict[str, Series]] = {}
    for name, series in below(metrics, "joint/").items():
        part, _, key = name.rpartition("/")
        parts.setdefault(part, {})[key] = series
    rows = tuple(row for row in (_row(part, columns) for part, columns in parts.items()) if row)
    steps = [series.steps for series in below(metrics, "joint/").values()]
    if not rows:
        return None
    return JointTable(min(int(s[0]) for s in steps), max(int(s[-1]) for s in steps), rows)


def _row(part: str, columns: Mapping[str, Series]) -> JointRow | None:
    measured = ("learning_rate", "gradient_norm", "update")
    if not {*COUNTS, *measured} <= columns.keys():
        return None
    first = {key: float(columns[key].values[0]) for key in measured}
    last = {key: columns[key].last for key in measured}
    return JointRow(
        part, int(columns["parameters"].last), int(columns["trainable"].last), first, last
    )


def _number(name: str, value: float) -> float:
    """Raise ValueError for what no page can show: a name that is no text, or a count that is no
    number.
    """
    name.encode()  # JSON can name half a character, a lone surrogate
    if name.rpartition("/")[2] in COUNTS:
        return int(value)
    return float(value)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; restore the file") from None
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if line.strip():
            yield number, line


def _series(by_step: Mapping[int, float]) -> Series:
    steps = sorted(by_step)
    return Series(np.array(steps), np.array([by_step[step] for step in steps], dtype=np.float64))
