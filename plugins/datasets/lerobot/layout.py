"""Where a LeRobot dataset keeps its episodes, according to its folder meta/.

An episode consists of some rows of a table and, for each camera, of some seconds of a video.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from string import Formatter
from typing import Any

from core import DataError, import_optional, one_line
from core.formats import check_claimed_size, file_size, parse_json, path_below

VERSIONS = ("v2.0", "v2.1", "v3.0")
EPISODE = "episode_index"
# rows of a table that are unpacked at once
BATCH_ROWS = 256


@dataclass(frozen=True)
class EpisodeLocation:
    """Where an episode is stored.

    length: number of the episode's frames.
    table: the parquet file that holds the episode's rows, and perhaps rows of other episodes.
    videos: {feature: (video file, second at which the episode begins in that file)}.
    facts: {name: number or text}, what meta/ says about the episode.
    """

    length: int
    table: Path
    videos: Mapping[str, tuple[Path, float]]
    facts: Mapping[str, Any] = field(default_factory=dict)


Locations = dict[str, EpisodeLocation | DataError]


@dataclass(frozen=True)
class Layout:
    """What meta/ says about a dataset.

    fps: frames per second.
    features: {name: entry in info.json}.
    robot: name of the robot.
    locations: {episode: where it is stored}, and in addition {file: error} for each unreadable or
        incomplete list of episodes.
    tasks: {index of the task: instruction}, or why they cannot be read.
    splits: {name of a split: (its first episode, the one after its last)}.
    shares_tables: whether a table may hold several episodes.
    """

    fps: float
    features: Mapping[str, Mapping[str, Any]]
    robot: str
    locations: Mapping[str, EpisodeLocation | DataError]
    tasks: Mapping[int, str] | DataError
    splits: Mapping[str, tuple[int, int]]
    shares_tables: bool


def read_layout(root: Path) -> Layout:
    """Read meta/; raises a DataError with the file if meta/ is damaged or of an unknown version."""
    path = root / "meta" / "info.json"
    if not path.exists():
        raise DataError(
            f"{path}: not there; name the folder of a LeRobot dataset, with meta/ in it"
        )
    file_size(path)
    try:
        info = parse_json(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if version not in VERSIONS:
            raise DataError(
                f"{path}: version {version}; known: {', '.join(VERSIONS)}; convert it with lerobot"
            )
        _check(info)
        read_episodes = _read_episodes_v3 if version == "v3.0" else _read_episodes_v2
        locations = read_episodes(root, info)
        count = int(info.get("total_episodes", 0))
        has_errors = any(isinstance(location, DataError) for location in locations.values())
        if len(locations) < count and not has_errors:
            locations[f"meta/{path.name}"] = DataError(
                f"{path}: counts {count} episodes, and {len(locations)} are listed beside it; "
                "copy the dataset again, or correct total_episodes"
            )
        robot = str(info.get("robot_type") or "robot")
        return Layout(
            fps=float(info["fps"]),
            features=info["features"],
            robot=robot,
            locations=locations,
            tasks=_read_tasks(root, version),
            splits=_splits(info),
            shares_tables=version == "v3.0",
        )
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged JSON can say anything
        raise DataError(
            f"{root / 'meta'}: damaged or incomplete ({_reason(error)}); correct it, or copy the "
            "dataset again"
        ) from None


def read_table(
    path: Path, columns: Sequence[str], episode: int | None = None
) -> dict[str, list[Any]]:
    """Read columns of a parquet file: {column: cells of all rows, or of one episode's rows}.

    columns: names; an empty list means all. Checksums are verified if the file has them.

    Raises DataError with the file's name.
    """
    parquet = import_optional("pyarrow.parquet", extra="lerobot")
    size, unpacked = file_size(path), 0
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as table:
            check_claimed_size(table.metadata.num_rows, size, str(path))
            names = list(columns) or table.schema_arrow.names
            cells: dict[str, list[Any]] = {name: [] for name in names}
            for batch in table.iter_batches(
                BATCH_ROWS,
                row_groups=_row_groups(table.metadata, episode),
                columns=[*dict.fromkeys([*names, *([] if episode is None else [EPISODE])])],
                use_threads=False,
            ):
                arrays = _arrays(batch, names, episode)
                # a text that is stored once may be that of millions of rows
                unpacked += sum(array.nbytes for array in arrays)
                check_claimed_size(unpacked, size, str(path))
                for name, array in zip(names, arrays, strict=True):
                    cells[name] += array.to_pylist()
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged bytes make the reader raise almost anything
        raise DataError(f"{path}: cannot be read ({_reason(error)}); copy it again") from None
    return cells


def _row_groups(metadata: Any, episode: int | None) -> list[int]:
    """Return the indices of a table's row groups, without those that lack the episode."""
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    groups = []
    for group in range(metadata.num_row_groups):
        if episode is not None:
            known = metadata.row_group(group).column(paths.index(EPISODE)).statistics
            if known is not None and known.has_min_max and not known.min <= episode <= known.max:
                continue
        groups.append(group)
    return groups


def _arrays(batch: Any, names: Sequence[str], episode: int | None) -> list[Any]:
    """Return columns of a batch, of the rows of an episode, with a value for each row."""
    if episode is not None:
        compute = import_optional("pyarrow.compute", extra="lerobot")
        batch = batch.filter(compute.equal(batch.column(EPISODE), episode))
    arrays = [batch.column(name) for name in names]
    return [x.dictionary_decode() if hasattr(x, "dictionary_decode") else x for x in arrays]


def column_names(path: Path) -> list[str]:
    """Return the names of a parquet file's columns; raises DataError with the file's name."""
    parquet = import_optional("pyarrow.parquet", extra="lerobot")
    file_size(path)
    try:
        return list(parquet.read_schema(path).names)
    except Exception as error:  # noqa: BLE001 - damaged bytes make the reader raise almost anything
        raise DataError(f"{path}: cannot be read ({_reason(error)}); copy it again") from None


def _check(info: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError if info.json lacks fps or features, or if they are wrong.

    A feature's shape is looked at only if it is read.
    """
    if not 0 < float(info["fps"]) < inf:
        raise ValueError(f"fps is {info['fps']}")
    for name, feature in info["features"].items():
        if not isinstance(feature["dtype"], str):
            raise ValueError(f"feature '{name}' is {feature['dtype']}")


def _splits(info: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the splits that are a range of episodes, "0:50"."""
    splits = {}
    for name, text in (info.get("splits") or {}).items():
        if match := re.fullmatch(r"(\d{1,12}):(\d{1,12})", str(text)):
            splits[str(name)] = int(match[1]), int(match[2])
    return splits


# ------------------------------------------------------------------------------ lists of episodes


def _read_episodes_v3(root: Path, info: Mapping[str, Any]) -> Locations:
    """Read the list of episodes in version 3.0: parquet tables with many episodes each."""
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DataError(f"{root / 'meta' / 'episodes'}: lists no episodes; copy the dataset again")
    locations: Locations = {}
    for file in files:
        try:
            locations |= _read_episode_table(root, info, file)
        except DataError as error:
            locations[file.relative_to(root).as_posix()] = error
    return locations


def _read_episode_table(
    root: Path, info: Mapping[str, Any], file: Path
) -> dict[str, EpisodeLocation]:
    """Return the locations of the episodes that one table of meta/episodes lists.

    A video of which the table does not say where it is may be one that nobody asks for.
    """
    known = column_names(file)
    video_keys = [key for key in _video_keys(info) if f"videos/{key}/file_index" in known]
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for key in video_keys:
        columns += [
            f"videos/{key}/{entry}" for entry in ("chunk_index", "file_index", "from_timestamp")
        ]
    # what users may have added, a quality for example; statistics are many and never asked for
    columns += [name for name in known if "/" not in name and name not in columns]
    cells = read_table(file, columns)
    locations = {}
    for number in range(len(cells["episode_index"])):
        row = {name: column[number] for name, column in cells.items()}
        table = _fill(
            info["data_path"],
            {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]},
        )
        videos = {}
        for key in video_keys:
            entries = ("chunk_index", "file_index", "from_timestamp")
            chunk, index, begin = (row[f"videos/{key}/{entry}"] for entry in entries)
            if None not in (chunk, index, begin):
                fields = {"video_key": key, "chunk_index": chunk, "file_index": index}
                video = path_below(root, _fill(info["video_path"], fields))
                videos[key] = (video, float(begin))
        facts = {name: value for name, value in row.items() if "/" not in name}
        locations[_episode_name(row)] = EpisodeLocation(
            int(row["length"]), path_below(root, table), videos, facts
        )
    return locations


def _read_episodes_v2(root: Path, info: Mapping[str, Any]) -> Locations:
    """Read the list of episodes in version 2: JSON lines; each episode has files of its own."""
    locations: Locations = {}
    for row in _json_lines(root / "meta" / "episodes.jsonl"):
        episode = int(row["episode_index"])
        fields = {"episode_index": episode, "episode_chunk": episode // int(info["chunks_size"])}
        videos = {
            key: (path_below(root, _fill(info["video_path"], {"video_key": key, **fields})), 0.0)
            for key in _video_keys(info)
        }
        table = path_below(root, _fill(info["data_path"], fields))
        locations[_episode_name(row)] = EpisodeLocation(int(row["length"]), table, videos, row)
    return locations


def _read_tasks(root: Path, version: str) -> dict[int, str] | DataError:
    """Return {index of the task: instruction}.

    If the list cannot be read, return the error, which matters only if the user gives no
    instruction.
    """
    path = root / "meta" / ("tasks.parquet" if version == "v3.0" else "tasks.jsonl")
    try:
        if version != "v3.0":
            rows = [(row["task_index"], row["task"]) for row in _json_lines(path)]
        else:
            table = read_table(path, [])
            # the words are the index of a pandas table; its name is "task" or pandas' default name
            others = [key for key in table if key != "task_index"]
            words = next((key for key in ("task", "__index_level_0__") if key in table), others[0])
            rows = list(zip(table["task_index"], table[words], strict=True))
        return {int(index): str(task) for index, task in rows if task is not None}
    except DataError as error:
        return DataError(f"{error}, or say instruction = ...")
    except Exception as error:  # noqa: BLE001 - damaged JSON can say anything
        return DataError(
            f"{path}: damaged ({_reason(error)}); copy it again, or say instruction = ..."
        )


def _episode_name(row: Mapping[str, Any]) -> str:
    return f"{int(row['episode_index']):06d}"


def _fill(template: str, fields: Mapping[str, Any]) -> str:
    """Return a file's path: a template of info.json with its fields filled in.

    A template can set the number of digits of an index. More than 99 digits are refused, because
    millions of digits would take all memory, and so are attributes of a field.
    """
    for _, name, spec, conversion in Formatter().parse(template):
        is_known = name is None or (name.isidentifier() and conversion is None)
        if not is_known or not re.fullmatch(r"0?\d{0,2}d?", spec or ""):
            raise ValueError(f"'{template}' names no files")
    return template.format(**fields)


def _video_keys(info: Mapping[str, Any]) -> list[str]:
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def _json_lines(path: Path) -> Iterator[Any]:
    file_size(path)
    with path.open(encoding="utf-8") as lines:
        yield from (parse_json(line) for line in lines if line.strip())


def _reason(error: Exception) -> str:
    return ("it lacks " if isinstance(error, KeyError) else "") + one_line(error)
