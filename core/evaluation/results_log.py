"""The log of an evaluation's results, episodes.jsonl, from which a killed evaluation continues."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import DataError
from core.evaluation.files import write_errors_as_data_errors, write_file
from core.rollout.results import Result, Timing
from core.system.files import complete_lines

# Results do not depend on these two entries of the identity. The entries change if somebody renames
# the run's folder, or edits keys of the run's recipe that do not affect the weights.
IGNORED_DIFFERENCES = frozenset({"policy.recipe_sha256", "policy.run"})


@dataclass(frozen=True)
class LogEntry:
    """The result of an attempt or chain, and the time since the previous entry."""

    result: Result
    timing: Timing


class ResultsLog:
    """The file FOLDER/episodes.jsonl: its first line is the identity, each other line a result.

    identity: what distinguishes this evaluation from others, as plain data {group: {key: value}}.

    An existing log is continued if its identity differs at most in IGNORED_DIFFERENCES. Raises
    DataError if the folder holds another evaluation, if the log is damaged, or if the log cannot be
    written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.path = folder / "episodes.jsonl"
        self.entries: list[LogEntry] = []
        if lines := complete_lines(self.path):
            self._check_identity(lines[0], identity)
            self.entries = [self._entry(number, line) for number, line in enumerate(lines[1:], 2)]
        else:
            lines = [json.dumps(identity) + "\n"]
            # these files are left from an evaluation whose log was removed
            for name in ("results.json", "predictions.npz"):
                (folder / name).unlink(missing_ok=True)
            for rollout in folder.glob("rollouts/*.npz"):
                rollout.unlink(missing_ok=True)
        content = "".join(lines).encode()
        if not self.path.exists() or self.path.read_bytes() != content:
            write_file(self.path, content)
        self._size = len(content)

    def append(self, entry: LogEntry) -> None:
        """Add a result to the log.

        Raises DataError if another evaluation has written to the log, or if writing fails.
        """
        line = (json.dumps(asdict(entry)) + "\n").encode()
        with write_errors_as_data_errors(self.path), self.path.open("ab") as file:
            if file.tell() != self._size:
                raise DataError(
                    f"{self.path.parent}: another evaluation writes here, too; let it finish, or "
                    "name another folder with joinery evaluate --output"
                )
            file.write(line)
        self._size += len(line)
        self.entries.append(entry)

    def _check_identity(self, line: str, identity: Mapping[str, Any]) -> None:
        """Raise DataError if the log's first line is damaged or identifies another evaluation."""
        try:
            old, new = _flat(json.loads(line)), _flat(identity)
        except (ValueError, AttributeError):
            raise DataError(
                f"{self.path}, line 1: damaged; remove the file to evaluate anew"
            ) from None
        keys = sorted((old.keys() | new.keys()) - IGNORED_DIFFERENCES)
        differences = [
            f"{key} {old.get(key)!r} there, {new.get(key)!r} now"
            for key in keys
            if old.get(key) != new.get(key)
        ]
        if differences:
            raise DataError(
                f"{self.path.parent}: holds another evaluation ({'; '.join(differences)}): remove "
                "it or move it away, or name another folder with joinery evaluate --output"
            )

    def _entry(self, number: int, line: str) -> LogEntry:
        try:
            return TypeAdapter(LogEntry).validate_json(line)
        except ValidationError:
            reason = "damaged"
            if line.startswith('{"episodes": ['):
                reason = "written by an earlier version, several attempts to a line"
            raise DataError(
                f"{self.path}, line {number}: {reason}; remove the file to evaluate anew"
            ) from None


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{group}.{key}": value for group, keys in identity.items() for key, value in keys.items()
    }
