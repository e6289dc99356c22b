"""Where LeRobot's formats keep an episode: which rows of which table, and which seconds of which videos."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import DataError, import_optional, one_line

VERSIONS = ("v2.0", "v2.1", "v3.0")


@dataclass(frozen=True)
class Place:
    """Where an episode lies.

    length: its frames. table: the parquet file that holds its rows, perhaps among others'.
    videos: {feature: (file, second at which the episode begins in it)}.
    """

    length: int
    table: Path
    videos: Mapping[str, tuple[Path, float]]


@dataclass(frozen=True)
class Layout:
    """What a dataset says of itself.

    fps: frames per second. features: as info.json has them. robot: its name. places: {episode: where it lies}.
    tasks: {number: what the robot is told}.
    """

    fps: float
    features: Mapping[str, Mapping[str, Any]]
    robot: str
    places: Mapping[int, Place]
    tasks: Mapping[int, str]


def read_layout(root: Path) -> Layout:
    """Read meta/; raises DataError, naming the file, for what is missing, damaged or of an unknown version."""
    path = root / "meta" / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if version not in VERSIONS:
            raise DataError(f"{path}: version {version}; known: {', '.join(VERSIONS)}; convert it with lerobot")
        split = _tables if version == "v3.0" else _lines
        places, tasks = split(root, info)
        return Layout(float(info["fps"]), info["features"], str(info.get("robot_type") or "robot"), places, tasks)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename}: not there; name the folder of a LeRobot dataset, with meta/ in it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{root / 'meta'}: damaged or incomplete ({_reason(error)}); copy the dataset again") from None


def read_table(path: Path, columns: Sequence[str], episode: int | None = None) -> list[dict[str, Any]]:
    """Read rows of a parquet file, all or one episode's; raises DataError that names the file."""
    parquet = import_optional("pyarrow.parquet", extra="lerobot")
    chosen = None if episode is None else [("episode_index", "==", episode)]
    try:
        rows: list[dict[str, Any]] = parquet.read_table(
            path, columns=list(columns) or None, filters=chosen, use_threads=False
        ).to_pylist()
    except Exception as error:  # noqa: BLE001 - damaged bytes make the reader raise almost anything
        raise DataError(f"{path}: cannot be read ({_reason(error)}); copy it again") from None
    return rows


def _tables(root: Path, info: Mapping[str, Any]) -> tuple[dict[int, Place], dict[int, str]]:
    """Version 3.0: many episodes a file, listed in tables."""
    videos = _videos(info)
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for key in videos:
        columns += [f"videos/{key}/{entry}" for entry in ("chunk_index", "file_index", "from_timestamp")]
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(2, "", str(root / "meta" / "episodes"))
    places = {}
    for row in (row for file in files for row in read_table(file, columns)):
        data = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        films = {key: _film(root, info, key, row) for key in videos}
        places[int(row["episode_index"])] = Place(int(row["length"]), root / info["data_path"].format(**data), films)
    tasks = {int(row["task_index"]): _text(row) for row in read_table(root / "meta" / "tasks.parquet", [])}
    return places, tasks


def _film(root: Path, info: Mapping[str, Any], key: str, row: Mapping[str, Any]) -> tuple[Path, float]:
    chunk, file, begins = (row[f"videos/{key}/{entry}"] for entry in ("chunk_index", "file_index", "from_timestamp"))
    return root / info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file), float(begins)


def _lines(root: Path, info: Mapping[str, Any]) -> tuple[dict[int, Place], dict[int, str]]:
    """Versions 2.0 and 2.1: files of one episode each, listed line by line."""
    places = {}
    for row in _json_lines(root / "meta" / "episodes.jsonl"):
        episode = int(row["episode_index"])
        where = {"episode_index": episode, "episode_chunk": episode // int(info["chunks_size"])}
        films = {key: (root / info["video_path"].format(video_key=key, **where), 0.0) for key in _videos(info)}
        places[episode] = Place(int(row["length"]), root / info["data_path"].format(**where), films)
    return places, {int(row["task_index"]): str(row["task"]) for row in _json_lines(root / "meta" / "tasks.jsonl")}


def _videos(info: Mapping[str, Any]) -> list[str]:
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _text(row: Mapping[str, Any]) -> str:
    """The task in a row of tasks.parquet, whose index pandas calls "task" or nothing."""
    return str(next(value for key, value in row.items() if key != "task_index"))


def _reason(error: Exception) -> str:
    return ("it lacks " if isinstance(error, KeyError) else "") + one_line(error)
