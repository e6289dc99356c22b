"""What a sweep has planned, in its folder, so that another call can say what has changed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import ConfigError, DataError
from core.evaluation.files import write_file
from core.system.strict import from_plain, one_line, parse_json

FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What is compared with a former call.

    variants: their names; of a study, those before its search.
    """

    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    threads: int


def note_plan(output: Path, plan: Plan) -> list[str]:
    """Write the plan into the sweep's folder, and return lines on what has been added or dropped.

    Raises ConfigError if the runs would compute with another number of threads than those before,
    and DataError if the former plan is damaged.
    """
    path = output / FILE
    lines = []
    if former := _read(path):
        if former.threads != plan.threads:
            raise ConfigError(
                f"threads: the runs in {output} compute with {former.threads}, and would now with "
                f"{plan.threads}, which rounds otherwise; restore it, or name another --output"
            )
        lines += _changes("variants", former.variants, plan.variants)
        lines += _changes("seeds", former.seeds, plan.seeds)
    write_file(path, json.dumps(asdict(plan), indent=1).encode())
    return lines


def _read(path: Path) -> Plan | None:
    try:
        return from_plain(Plan, parse_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read it ({one_line(error)}); remove it") from None


def _changes(what: str, former: Sequence[object], new: Sequence[object]) -> list[str]:
    added = ", ".join(str(item) for item in new if item not in former)
    dropped = ", ".join(str(item) for item in former if item not in new)
    lines = [f"added {what}: {added}"] if added else []
    if dropped:
        lines.append(f"{what} no longer in the sweep: {dropped}; their runs stay, and are left out")
    return lines
