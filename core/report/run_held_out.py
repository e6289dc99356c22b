"""The table of errors on held-out episodes, for runs without an environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from core.errors import DataError
from core.report.wording import significant
from core.system.strict import from_plain, one_line, parse_json
from core.system.tables import NumberTable


@dataclass(frozen=True)
class HeldOutTable:
    """Mean absolute errors: a row for each action dimension, a cell for each shown step.

    headings: the columns after the dimension's name.
    rows: (name of the dimension, cells as text).
    """

    episodes: int
    frames: int
    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class _File:
    """The content of evaluation/held_out.json, as core/evaluation/offline.py writes it."""

    names: tuple[str, ...]
    episodes: int
    frames: int
    errors: tuple[tuple[float | None, ...], ...]
    constant: tuple[float, ...]


def held_out_table(evaluation: Path) -> HeldOutTable | None:
    """Read the errors from an evaluation's folder; None if there are none.

    Raises DataError for a damaged file.
    """
    path = evaluation / "held_out.json"
    if not path.is_file():
        return None
    try:
        content = from_plain(_File, parse_json(path.read_text(encoding="utf-8")))
        steps = shown_steps(len(content.errors))
        columns = [*(content.errors[step] for step in steps), content.constant]
        rows = [
            (
                name,
                [
                    "-" if (error := column[d]) is None else significant(error, 4)
                    for column in columns
                ],
            )
            for d, name in enumerate(content.names)
        ]
    except (ValueError, IndexError, RecursionError) as damage:
        raise DataError(f"{path}: damaged ({one_line(damage)}); evaluate the run again") from None
    headings = [*(f"step {step + 1}" for step in steps), "constant"]
    return HeldOutTable(content.episodes, content.frames, headings, rows)


def show_held_out(evaluation: Path, console: Console) -> None:
    """Print the table of the errors in an evaluation's folder."""
    content = held_out_table(evaluation)
    if content is None:
        return
    console.print(
        f"mean absolute errors on {content.episodes} held-out episodes, {content.frames} frames, "
        "in the units of the data; constant: of the best constant action",
        soft_wrap=True,
    )
    table = NumberTable(("action", *content.headings))
    for name, cells in content.rows:
        table.add_row(name, *cells)
    console.print(table)


def shown_steps(horizon: int) -> list[int]:
    """Return a few steps of a chunk (indices): the first, the last, and some between."""
    return sorted({0, horizon // 4, horizon // 2, horizon - 1})
