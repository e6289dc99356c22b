"""The log of an evaluation's results, episodes.jsonl, from which a killed evaluation continues."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import DataError
from core.evaluation.files import write_errors_as_data_errors, write_file
from core.rollout.results import (
    STANDARD,
    ChainResult,
    EpisodeResult,
    Evaluation,
    Result,
    Timing,
    read_evaluation,
)
from core.system.files import complete_lines
from core.system.links import open_to_append, refuse_links_out
from core.system.strict import one_line, parse_json

FILE = "episodes.jsonl"

# Results do not depend on these entries of the identity. The first two change if somebody renames
# the run's folder, or edits keys of the run's recipe that do not affect the weights; the others say
# where parts and data came from, which the weights contain.
IGNORED_DIFFERENCES = frozenset(
    {"policy.recipe_sha256", "policy.run", "policy.components", "policy.trained_on"}
)
# entries that logs of earlier versions lack
ADDED = frozenset({"protocol.max_steps"})
# the groups of the identity, and that of the first line which is no part of it
GROUPS, PLAN = ("policy", "environment", "protocol"), "plan"


@dataclass(frozen=True)
class LogEntry:
    """The result of an attempt or chain, and the time since the previous entry."""

    result: Result
    timing: Timing


@dataclass(frozen=True)
class PlanSummary:
    """What the log says about the plan, for those who read it when the evaluation was interrupted.

    rollouts: number of attempts and chains.
    tiers: {task: tier}.
    """

    rollouts: int | None = None
    tiers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Header:
    """The first line of a log: the identity, and something about the plan."""

    policy: Mapping[str, Any]
    environment: Mapping[str, Any]
    protocol: Mapping[str, Any]
    plan: PlanSummary = field(default_factory=PlanSummary)


class ResultsLog:
    """The file FOLDER/episodes.jsonl: its first line is the identity, each other line a result.

    identity: what distinguishes this evaluation from others, as plain data {group: {key: value}}.
    plan: what the first line says about the plan beside the identity.

    An existing log is continued if its identity differs at most in IGNORED_DIFFERENCES. Raises
    DataError if the folder holds another evaluation or somebody else's results.json, if the log is
    damaged or cannot be written, or if a link in the folder leads out of it.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], plan: PlanSummary | None = None
    ) -> None:
        refuse_links_out(folder)
        self.path = folder / FILE
        self.entries: list[LogEntry] = []
        if lines := complete_lines(self.path):
            self._check_identity(lines[0], identity)
            self.entries = read_entries(self.path, lines)
        else:
            header = {**identity, **({PLAN: asdict(plan)} if plan else {})}
            lines = [json.dumps(header) + "\n"]
            _remove_results(folder)
        content = "".join(lines).encode()
        if not self.path.exists() or self.path.read_bytes() != content:
            write_file(self.path, content)
        self._size = len(content)

    def append(self, entry: LogEntry) -> None:
        """Add a result to the log.

        Raises DataError if another evaluation has written to the log, or if writing fails.
        """
        line = (json.dumps(asdict(entry)) + "\n").encode()
        with write_errors_as_data_errors(self.path), open_to_append(self.path) as file:
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
            old, new = _flat(parse_json(line)), _flat(identity)
        except (ValueError, AttributeError):
            raise DataError(
                f"{self.path}, line 1: damaged; remove the file to evaluate anew"
            ) from None
        keys = sorted((old.keys() | new.keys()) - IGNORED_DIFFERENCES - (ADDED - old.keys()))
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


def _remove_results(folder: Path) -> None:
    """Remove what is left of an evaluation whose log was removed.

    Raises DataError if results.json is no evaluation's, as it may be where `--output` leads.
    """
    if (results := folder / "results.json").is_file():
        try:
            read_evaluation(results)
        except DataError:
            raise DataError(
                f"{results}: would be replaced, and is no evaluation that can be read; move it "
                "away, or name another folder with joinery evaluate --output"
            ) from None
    for file in (results, folder / "predictions.npz", *recorded_rollouts(folder)):
        file.unlink(missing_ok=True)


def recorded_rollouts(folder: Path) -> list[Path]:
    """Return the films in an evaluation's folder, sorted by name; earlier versions wrote arrays.

    Other files, in a folder that `--output` names, are no films of an evaluation.
    """
    endings = [f"-{kind}{suffix}" for kind in ("success", "failure") for suffix in (".mp4", ".npz")]
    return sorted(path for ending in endings for path in folder.glob(f"rollouts/*{ending}"))


def read_entries(path: Path, lines: Sequence[str]) -> list[LogEntry]:
    """Return the results in the lines of a log; raises DataError for a line that is damaged."""
    entries = []
    for number, line in enumerate(lines[1:], 2):
        try:
            entries.append(TypeAdapter(LogEntry).validate_json(line))
        except ValidationError:
            reason = "damaged"
            if line.startswith('{"episodes": ['):
                reason = "written by an earlier version, several attempts to a line"
            raise DataError(
                f"{path}, line {number}: {reason}; remove the file to evaluate anew"
            ) from None
    return entries


def read_results(folder: Path) -> Evaluation | None:
    """Read the results in an evaluation's folder; None if there are none.

    Of an evaluation that was interrupted, or is still running, these are the attempts that have
    ended. Raises DataError for a damaged file.
    """
    if (results := folder / "results.json").is_file():
        return read_evaluation(results)
    if not (log := folder / FILE).is_file():
        return None
    try:
        if not (lines := complete_lines(log)):
            return None
        header = TypeAdapter(_Header).validate_json(lines[0])
        entries = read_entries(log, lines)
        results_in_order = sorted((entry.result for entry in entries), key=_order(header.protocol))
        planned = header.plan.rollouts
        missing = None if planned is None else max(0, planned - len(entries))
        identity = {group: getattr(header, group) for group in GROUPS}
        return summarize(identity, entries, results_in_order, header.plan.tiers, missing)
    except (ValueError, TypeError) as error:
        raise DataError(f"{log}: damaged ({one_line(error)}); evaluate the run again") from None


def _order(protocol: Mapping[str, Any]) -> Callable[[Result], tuple[int, ...]]:
    """Return the key that sorts results as a plan has them: by condition, seed and task."""
    conditions = [STANDARD, *protocol.get("controls", [])]
    tasks = list(protocol.get("tasks", []))

    def position(result: Result) -> tuple[int, ...]:
        if isinstance(result, ChainResult):
            return (len(conditions) + 1, result.seed)
        condition = conditions.index(result.condition) if result.condition in conditions else -1
        task = tasks.index(result.task) if result.task in tasks else -1
        return (condition, result.seed, task)

    return position


def summarize(
    identity: Mapping[str, Any],
    entries: Sequence[LogEntry],
    results: Sequence[Result],
    tiers: Mapping[str, str],
    missing: int | None = 0,
) -> Evaluation:
    """Return an evaluation with its results, and the times of its log.

    entries: the log; if the evaluation was interrupted, the times include those of the earlier
        processes.
    results: the results of the entries, in the order of the plan.
    missing: see `Evaluation`.
    """
    seconds = sum(entry.timing.seconds for entry in entries)
    inference_ms = [ms for entry in entries for ms in entry.timing.inference_ms]
    busy_rows = sum(entry.timing.busy_rows for entry in entries)
    num_rows = identity["protocol"].get("lanes", 1)
    return Evaluation(
        policy=identity["policy"],
        environment=identity["environment"],
        protocol=identity["protocol"],
        tiers=tiers,
        episodes=[result for result in results if isinstance(result, EpisodeResult)],
        chains=[result for result in results if isinstance(result, ChainResult)],
        time={
            "inference_ms": median(inference_ms or [0.0]),
            "policy_steps": len(inference_ms),
            "rows_busy": busy_rows / max(1, num_rows * len(inference_ms)),
            "steps_per_second": sum(result.steps for result in results) / (seconds or 1.0),
            "seconds": seconds,
        },
        missing=missing,
    )


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{group}.{key}": value
        for group, keys in identity.items()
        if group != PLAN
        for key, value in keys.items()
    }
