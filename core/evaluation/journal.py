"""What an evaluation leaves on disk while it runs: results, from which a killed one goes on, and
rollouts.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from core.environments.environment import Observation
from core.errors import DataError
from core.rollout.attempt import Trial
from core.rollout.results import EpisodeResult, Result, Timing
from core.system.files import complete_lines

# the recipe may change in what the outcomes do not depend on, and the run's folder be renamed
UNCOMPARED = frozenset({"policy.recipe_sha256", "policy.run"})


@dataclass(frozen=True)
class Entry:
    """One finished attempt or chain, and what the time since the one before it went into."""

    result: Result
    timing: Timing


class Journal:
    """FOLDER/episodes.jsonl: what the outcomes depend on, then a line per attempt or chain as it
    ended.

    identity: what the outcomes depend on, {part: {key: value}}, as it reads when it comes back from
    JSON.
    Raises DataError where the folder holds an evaluation of something else, the file is damaged, or
    the disk refuses.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.path = folder / "episodes.jsonl"
        self.entries: list[Entry] = []
        if lines := complete_lines(self.path):
            self._check(lines[0], identity)
            self.entries = [self._entry(number, line) for number, line in enumerate(lines[1:], 2)]
        else:
            lines = [json.dumps(identity) + "\n"]
            for leftover in (
                folder / "results.json",
                folder / "predictions.npz",
                *folder.glob("rollouts/*.npz"),
            ):
                leftover.unlink(missing_ok=True)  # of an evaluation whose journal was removed
        content = "".join(lines).encode()
        if not self.path.exists() or self.path.read_bytes() != content:
            replace_file(self.path, content)
        self._size = len(content)

    def append(self, entry: Entry) -> None:
        """Keep what has ended; raises DataError where another evaluation does, too, or the disk
        refuses.
        """
        line = (json.dumps(asdict(entry)) + "\n").encode()
        with _naming(self.path), self.path.open("ab") as file:
            if file.tell() != self._size:
                raise DataError(
                    f"{self.path.parent}: another evaluation writes here, too; let it finish, or name another folder "
                    "with joinery evaluate --output"
                )
            file.write(line)
        self._size += len(line)
        self.entries.append(entry)

    def _check(self, line: str, identity: Mapping[str, Any]) -> None:
        try:
            old, new = _flat(json.loads(line)), _flat(identity)
        except (ValueError, AttributeError):
            raise DataError(
                f"{self.path}, line 1: damaged; remove the file to evaluate anew"
            ) from None
        changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        if changed := [key for key in changed if key not in UNCOMPARED]:
            shown = "; ".join(
                f"{key} {old.get(key)!r} there, {new.get(key)!r} now" for key in changed
            )
            raise DataError(
                f"{self.path.parent}: holds another evaluation ({shown}): remove it or move it away, or name another "
                "folder with joinery evaluate --output"
            )

    def _entry(self, number: int, line: str) -> Entry:
        try:
            return TypeAdapter(Entry).validate_json(line)
        except ValidationError:
            earlier = line.startswith('{"episodes": [')
            reason = (
                "written by an earlier version, several attempts to a line"
                if earlier
                else "damaged"
            )
            where = f"{self.path}, line {number}"
            raise DataError(f"{where}: {reason}; remove the file to evaluate anew") from None


def write_rollout(
    folder: Path, result: EpisodeResult, trial: Trial, cameras: Sequence[str], gripper: np.ndarray
) -> None:
    """Write what the policy saw to <task>-success.npz or <task>-failure.npz; gripper (n): 0 closed,
    1 open.
    """
    task = re.sub(r"[^A-Za-z0-9._-]", "_", result.task)
    name = f"{task}-{'success' if result.success else 'failure'}.npz"
    facts = {key: getattr(result, key) for key in ("task", "instruction", "seed", "success")}
    write_arrays(
        folder / name,
        {f"camera/{camera}": _frames(trial.frames, camera) for camera in cameras}
        | {"gripper": gripper.astype(np.float32)}
        | {key: np.array(value) for key, value in facts.items()},
    )


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz in one step; raises DataError where the disk refuses."""
    with _replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step; raises DataError where the disk refuses."""
    with _replacing(path) as file:
        file.write(content)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` once it is whole and on the disk."""
    temporary = path.with_name(f".{path.name}.writing")
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file the disk refused, as a DataError: a full disk itself does not."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot write it ({error.strerror or error}); make room or choose another folder, then give the "
            "same command again: finished attempts are kept"
        ) from error


def _frames(observations: Sequence[Observation], camera: str) -> np.ndarray:
    return np.stack([observation.images[camera] for observation in observations])


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{part}.{key}": value for part, keys in identity.items() for key, value in keys.items()
    }
