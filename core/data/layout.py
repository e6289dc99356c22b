"""How an episode store lies on disk: its metadata, its commits, and the names of its files.

    store.zarr/                zarr v3 group; its attributes are the StoreInfo and the codec of each camera
      parts/<uuid>/            an immutable zarr v3 group, invisible until a commit names it
        cam/<name>/data        uint8: encoded groups of frames back to back, one uncompressed chunk: a byte stream
        cam/<name>/end         uint32: where each group ends in the stream
        cam/<name>/crc         uint32: crc32c of each group
        action, proprio        float32 (n, d), one uncompressed chunk: memory-mapped as it lies
        episode/end, task      int32: where each episode ends, and its index into the commit's tasks
      commits/<sequence>.json  what the part holds, with checksums; readers trust commits alone

Groups of frames never span two episodes.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import google_crc32c
from pydantic import TypeAdapter, ValidationError

from core.data.codecs import Codec, make_codec
from core.data.metadata import ActionConvention, Camera, StoreInfo
from core.data.statistics import Statistics
from core.errors import DataError

FORMAT = "joinery-episodes"
VERSION = 1  # of the schema that this code writes, and the newest that it reads


def checksum(data: bytes) -> int:
    """Return the crc32c of data."""
    return int(google_crc32c.value(data))


def chunk_file(part: Path, array: str, ndim: int) -> Path:
    """Return the file of an array's only chunk."""
    return part.joinpath(array, "c", *["0"] * ndim)


# ---------------------------------------------------------------------------------------------- metadata


def to_attributes(info: StoreInfo, codecs: Mapping[str, Codec]) -> dict[str, Any]:
    """Return the attributes of a store's root group."""
    return {
        "format": FORMAT,
        "schema_version": VERSION,
        "min_reader_version": VERSION,
        "fps": info.fps,
        "features": {
            "action": {"dtype": "float32", "shape": [info.action.dim], "names": list(info.action.names)},
            "proprio": {"dtype": "float32", "shape": [len(info.proprio)], "names": list(info.proprio)},
        },
        "cameras": {
            name: asdict(camera) | {"codec": codec.name, "group": codec.group, "quality": codec.quality}
            for (name, camera), codec in zip(info.cameras.items(), (codecs[n] for n in info.cameras), strict=True)
        },
        "action": asdict(info.action),
        "origin": info.origin,
    }


def read_attributes(path: Path) -> tuple[StoreInfo, dict[str, Codec]]:
    """Read what a store says about itself; raises DataError if there is none, or one that this version cannot read."""
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no episode store here; make one with `joinery import`, or mend the path") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / 'zarr.json'}: unreadable ({error}); restore the file or import again") from error
    if attributes.get("format") != FORMAT:
        raise DataError(f"{path}: a zarr group, but no episode store; make one with `joinery import`")
    if attributes.get("min_reader_version", 0) > VERSION:
        wants = attributes["min_reader_version"]
        raise DataError(f"{path}: written for readers of version {wants}, this one reads {VERSION}; upgrade joinery")
    try:
        return _from_attributes(attributes)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path / 'zarr.json'}: metadata is damaged ({error}); restore it or import again") from error


def _from_attributes(attributes: Mapping[str, Any]) -> tuple[StoreInfo, dict[str, Codec]]:
    cameras = attributes["cameras"]
    info = StoreInfo(
        fps=float(attributes["fps"]),
        cameras={name: Camera(camera["height"], camera["width"]) for name, camera in cameras.items()},
        action=TypeAdapter(ActionConvention).validate_python(attributes["action"]),
        proprio=tuple(attributes["features"]["proprio"]["names"]),
        origin=attributes["origin"],
    )
    codecs = {name: make_codec(camera["codec"], camera["group"], camera["quality"]) for name, camera in cameras.items()}
    return info, codecs


# ---------------------------------------------------------------------------------------------- commits


@dataclass(frozen=True)
class Task:
    """A task and what the robot is told."""

    name: str
    instruction: str


@dataclass(frozen=True)
class ArrayRecord:
    """Shape and crc32c of an array's bytes."""

    shape: tuple[int, ...]
    crc32c: int


@dataclass(frozen=True)
class Commit:
    """What one part holds.

    part: its folder's name.
    frames: their number.
    episodes: their ids, in the order of the frames.
    tasks: what `episode/task` indexes.
    arrays: by path inside the part.
    statistics: of "action" and "proprio".
    """

    part: str
    frames: int
    episodes: tuple[str, ...]
    tasks: tuple[Task, ...]
    arrays: dict[str, ArrayRecord]
    statistics: dict[str, Statistics]


_COMMIT = TypeAdapter(Commit)


def read_commits(path: Path, first: int = 0) -> list[Commit]:
    """Read a store's commits from number `first` on; raises DataError for one that is damaged or missing."""
    files = sorted((path / "commits").glob("[0-9]*.json"))[first:]
    for number, file in enumerate(files, first):
        if file != commit_file(path, number):
            raise DataError(f"{commit_file(path, number)}: missing, though {file.name} exists; restore it")
    return [_read_commit(file) for file in files]


def commit_file(path: Path, number: int) -> Path:
    """Return where a commit lies."""
    return path / "commits" / f"{number:08d}.json"


def _read_commit(file: Path) -> Commit:
    try:
        content = json.loads(file.read_text())
        if content["crc32c"] == checksum(_canonical(content["commit"])):
            return _COMMIT.validate_python(content["commit"])
    except (OSError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise DataError(f"{file}: commit is unreadable ({error}); restore the file or import again") from error
    raise DataError(f"{file}: commit does not match its checksum; restore the file or import again")


def publish(path: Path, number: int, commit: Commit) -> bool:
    """Make commit `number` appear whole, or return False if that number is taken: a hard link never overwrites."""
    content = _COMMIT.dump_python(commit, mode="json")
    text = json.dumps({"crc32c": checksum(_canonical(content)), "commit": content})
    temporary = path / "commits" / f".{uuid4().hex}"
    try:
        with temporary.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, commit_file(path, number))
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync(path / "commits")
    return True


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def sync(*paths: Path) -> None:
    """Flush files and folders to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def tree(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, then the folder itself."""
    yield from folder.rglob("*")
    yield folder


def differences(ours: StoreInfo, theirs: StoreInfo) -> Sequence[str]:
    """Name the fields in which two descriptions of episodes disagree; the note on the origin may differ."""
    a, b = asdict(ours), asdict(theirs)
    return [f"{key}: {b[key]} there, {a[key]} here" for key in a if key != "origin" and a[key] != b[key]]
