"""Where LeRobot's formats keep an episode: which rows of which table, and which seconds of which
videos.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from string import Formatter
from typing import Any

from core import DataError, import_optional, one_line
from core.formats import check_claimed_size, file_size

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

    fps: frames per second. features: as info.json has them. robot: its name. places: {episode:
    where it lies}, and {file: what is wrong with it} for one that should list episodes. tasks:
    {number: what the robot is told}.
    """

    fps: float
    features: Mapping[str, Mapping[str, Any]]
    robot: str
    places: Mapping[str, Place | DataError]
    tasks: Mapping[int, str]


def read_layout(root: Path) -> Layout:
    """Read meta/; raises DataError, naming the file, for what is missing, damaged or of an unknown
    version.
    """
    path = root / "meta" / "info.json"
    if not path.exists():
        raise DataError(
            f"{path}: not there; name the folder of a LeRobot dataset, with meta/ in it"
        )
    file_size(path)
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if version not in VERSIONS:
            raise DataError(
                f"{path}: version {version}; known: {', '.join(VERSIONS)}; convert it with lerobot"
            )
        _check(info)
        places, tasks = (_tables if version == "v3.0" else _lines)(root, info)
        places |= _lost(path, int(info.get("total_episodes", 0)), places)
        return Layout(
            float(info["fps"]),
            info["features"],
            str(info.get("robot_type") or "robot"),
            places,
            tasks,
        )
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged JSON can say anything
        raise DataError(
            f"{root / 'meta'}: damaged or incomplete ({_reason(error)}); copy the dataset again"
        ) from None


def read_table(
    path: Path, columns: Sequence[str], episode: int | None = None
) -> list[dict[str, Any]]:
    """Read rows of a parquet file, all or one episode's; raises DataError that names the file.

    Checksums are verified where the file has them.
    """
    parquet = import_optional("pyarrow.parquet", extra="lerobot")
    size = file_size(path)
    chosen = None if episode is None else [("episode_index", "==", episode)]
    try:
        check_claimed_size(parquet.read_metadata(path).num_rows, size, str(path))
        rows: list[dict[str, Any]] = parquet.read_table(
            path,
            columns=list(columns) or None,
            filters=chosen,
            use_threads=False,
            page_checksum_verification=True,
        ).to_pylist()
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged bytes make the reader raise almost anything
        raise DataError(f"{path}: cannot be read ({_reason(error)}); copy it again") from None
    return rows


def _check(info: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError where info.json lacks what is relied upon later."""
    if not 0 < float(info["fps"]) < inf:
        raise ValueError(f"fps is {info['fps']}")
    for name, feature in info["features"].items():
        if not isinstance(feature["dtype"], str) or not all(
            isinstance(n, int) and n > 0 for n in feature["shape"]
        ):
            raise ValueError(f"feature '{name}' is {feature['dtype']} {feature['shape']}")


def _lost(
    path: Path, promised: int, places: Mapping[str, Place | DataError]
) -> dict[str, DataError]:
    """What to say where fewer episodes are listed than info.json counts, and no damaged list
    explains it.
    """
    if len(places) >= promised or any(isinstance(place, DataError) for place in places.values()):
        return {}
    said = f"counts {promised} episodes, and {len(places)} are listed beside it"
    return {f"meta/{path.name}": DataError(f"{path}: {said}; copy the dataset again")}


def _tables(
    root: Path, info: Mapping[str, Any]
) -> tuple[dict[str, Place | DataError], dict[int, str]]:
    """Version 3.0: many episodes a file, listed in tables."""
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DataError(f"{root / 'meta' / 'episodes'}: lists no episodes; copy the dataset again")
    places: dict[str, Place | DataError] = {}
    for file in files:
        try:
            places |= _listed(root, info, file)
        except DataError as error:
            places[file.relative_to(root).as_posix()] = error
    tasks = {
        int(row["task_index"]): _text(row)
        for row in read_table(root / "meta" / "tasks.parquet", [])
    }
    return places, tasks


def _listed(root: Path, info: Mapping[str, Any], file: Path) -> dict[str, Place]:
    """The episodes that one table of meta/ lists."""
    videos = _videos(info)
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for key in videos:
        columns += [
            f"videos/{key}/{entry}" for entry in ("chunk_index", "file_index", "from_timestamp")
        ]
    places = {}
    for row in read_table(file, columns):
        data = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        films = {key: _film(root, info, key, row) for key in videos}
        places[_name(row)] = Place(
            int(row["length"]), root / _filled(info["data_path"], data), films
        )
    return places


def _film(
    root: Path, info: Mapping[str, Any], key: str, row: Mapping[str, Any]
) -> tuple[Path, float]:
    chunk, file, begins = (
        row[f"videos/{key}/{entry}"] for entry in ("chunk_index", "file_index", "from_timestamp")
    )
    where = {"video_key": key, "chunk_index": chunk, "file_index": file}
    return root / _filled(info["video_path"], where), float(begins)


def _lines(
    root: Path, info: Mapping[str, Any]
) -> tuple[dict[str, Place | DataError], dict[int, str]]:
    """Versions 2.0 and 2.1: files of one episode each, listed line by line."""
    places: dict[str, Place | DataError] = {}
    for row in _json_lines(root / "meta" / "episodes.jsonl"):
        episode = int(row["episode_index"])
        where = {"episode_index": episode, "episode_chunk": episode // int(info["chunks_size"])}
        films = {
            key: (root / _filled(info["video_path"], {"video_key": key, **where}), 0.0)
            for key in _videos(info)
        }
        places[_name(row)] = Place(
            int(row["length"]), root / _filled(info["data_path"], where), films
        )
    return places, {
        int(row["task_index"]): str(row["task"])
        for row in _json_lines(root / "meta" / "tasks.jsonl")
    }


def _name(row: Mapping[str, Any]) -> str:
    return f"{int(row['episode_index']):06d}"


def _filled(template: str, where: Mapping[str, Any]) -> str:
    """A file's name; its template may say how many digits a number has, and not that it has
    millions.
    """
    if any(
        not re.fullmatch(r"0?\d{0,2}d?", spec or "")
        for _, _, spec, _ in Formatter().parse(template)
    ):
        raise ValueError(f"'{template}' names no files")
    return template.format(**where)


def _videos(info: Mapping[str, Any]) -> list[str]:
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def _json_lines(path: Path) -> Iterator[Any]:
    file_size(path)
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _text(row: Mapping[str, Any]) -> str:
    """The task in a row of tasks.parquet, whose index pandas calls "task" or nothing."""
    return str(next(value for key, value in row.items() if key != "task_index"))


def _reason(error: Exception) -> str:
    return ("it lacks " if isinstance(error, KeyError) else "") + one_line(error)
