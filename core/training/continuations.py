"""Continuations with changes: RUN/continuations.json records how a run's recipe has changed.

It is a list of {"step": 200, "changes": {"train.steps": [200, 400]}, "data_changes": [], "data":
{...}}: which keys changed after which step, from what to what, and `Continuation` says the rest.

This module imports neither torch nor plugins, because reports read the file, too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.system.files import remove_leftovers, written_aside
from core.system.strict import parse_json

FILE = "continuations.json"


@dataclass(frozen=True)
class Continuation:
    """What changed in a run after one of its steps.

    step: number of steps that were done before.
    changes: {key of the recipe: its former and its new value}; None for a key that is not set.
    data_changes: what else changed in the data, "action_normalizer" for example: keys of the state
        that each checkpoint holds for acting.
    data: that state, as the new data make it. The checkpoint that the run goes on from holds the
        former one.
    """

    step: int
    changes: Mapping[str, Sequence[Any]]
    data_changes: Sequence[str]
    data: Mapping[str, Any]

    @property
    def keeps_errors_comparable(self) -> bool:
        """Whether validation errors of before and after may be compared.

        They may if nothing changed but how the weights are trained: keys of [train] and
        [optimizer], and the parts' learning rates and weight decays.
        """
        return not self.data_changes and all(
            key.startswith(("train.", "optimizer."))
            or key.endswith((".learning_rate", ".weight_decay"))
            for key in self.changes
        )

    def describe(self) -> str:
        """Return the changes as one line."""
        changes = [f"{key}: {former} -> {new}" for key, (former, new) in self.changes.items()]
        if self.data_changes:
            changes.append(f"other data ({', '.join(self.data_changes)})")
        return f"changed after step {self.step}: {'; '.join(changes)}"


def continued(continuations: Sequence[Continuation], newest: Continuation) -> list[Continuation]:
    """Return the continuations of a run with a further one.

    Earlier ones that began at the same step, or at a later step whose checkpoint has been removed,
    become one with it: no step was made with their recipe alone that the run still has. If they
    cancel each other out, none of them remains.
    """
    changes: dict[str, Sequence[Any]] = {}
    data_changes: list[str] = []
    superseded = [entry for entry in continuations if entry.step >= newest.step]
    for entry in (*superseded, newest):
        for key, (former, new) in entry.changes.items():
            changes[key] = [changes.get(key, [former])[0], new]
        data_changes += [key for key in entry.data_changes if key not in data_changes]
    changes = {key: pair for key, pair in changes.items() if pair[0] != pair[1]}
    kept = [entry for entry in continuations if entry.step < newest.step]
    if changes or data_changes:
        kept.append(Continuation(newest.step, changes, data_changes, newest.data))
    return kept


def change_at(continuations: Sequence[Continuation], step: int) -> Continuation | None:
    """Return what changes when training goes on after `step` steps; None if nothing does."""
    return next((entry for entry in continuations if entry.step == step), None)


def comparable_from(continuations: Sequence[Continuation]) -> int:
    """Return the step after which all validation errors may be compared; 0: from the first on."""
    steps = [entry.step for entry in continuations if not entry.keeps_errors_comparable]
    return max(steps, default=0)


def read_continuations(run: Path) -> list[Continuation]:
    """Read a run's continuations, oldest first; raises DataError if the file is damaged."""
    path = run / FILE
    if not path.is_file():
        return []
    try:
        entries = parse_json(path.read_text(encoding="utf-8"))
        continuations = [Continuation(**entry) for entry in entries]
        for entry in continuations:
            int(entry.step), entry.describe()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot read it ({error}): restore the file, or remove it, and the run no "
            "longer tells what changed"
        ) from None
    return continuations


def write_continuations(run: Path, continuations: Sequence[Continuation]) -> None:
    """Replace a run's record of its continuations; without any, there is no file."""
    path = run / FILE
    remove_leftovers(path)
    if not continuations:
        path.unlink(missing_ok=True)
        return
    with written_aside(path) as aside:
        plain = [asdict(entry) for entry in continuations]
        aside.write_text(json.dumps(plain, indent=1, allow_nan=False), encoding="utf-8")
