"""What a store says about itself: the attributes of its root group, written and read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import TypeAdapter

from core.data.codecs import Chroma, Codec, make_codec
from core.data.contracts import ActionConvention, Camera, StoreInfo
from core.data.layout import one_line
from core.data.location import Location
from core.errors import DataError

FORMAT = "joinery-episodes"
VERSION = 1  # of the schema that this code writes, and the newest that it reads


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
            name: asdict(camera)
            | {"codec": codec.name, "group": codec.group, "quality": codec.quality, "chroma": codec.chroma}
            for (name, camera), codec in zip(info.cameras.items(), (codecs[n] for n in info.cameras), strict=True)
        },
        "action": asdict(info.action),
        "origin": info.origin,
    }


def read_attributes(path: Location) -> tuple[StoreInfo, dict[str, Codec]]:
    """Read what a store says about itself; raises DataError if there is none, or one that this version cannot read."""
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no episode store here; name one, or let `joinery import` make one at a new path"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / 'zarr.json'}: unreadable ({error}); restore the file or import again") from error
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise DataError(f"{path}: holds no episode store; name one, or let `joinery import` make one at a new path")
    wants = attributes.get("min_reader_version")
    if isinstance(wants, int) and wants > VERSION:
        raise DataError(f"{path}: written for readers of version {wants}, this one reads {VERSION}; upgrade joinery")
    try:
        return _from_attributes(attributes)
    except ValueError as error:
        where = path / "zarr.json"
        raise DataError(f"{where}: metadata is damaged ({one_line(error)}); restore it or import again") from error


@dataclass(frozen=True)
class _StoredCamera(Camera):
    """A camera's frames and how they are encoded."""

    codec: str
    group: Annotated[int, Gt(0), Le(2**16)]
    quality: Annotated[int, Ge(1), Le(100)] | None
    chroma: Chroma | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codec == "jpeg" and self.group != 1:
            raise ValueError(f"group {self.group}: jpeg has one frame a group")


@dataclass(frozen=True)
class _Feature:
    """The names of a feature's dimensions."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class _Attributes:
    """What is read of the attributes of a store's root group."""

    min_reader_version: int
    fps: float
    features: dict[str, _Feature]
    cameras: dict[str, _StoredCamera]
    action: ActionConvention
    origin: str

    def __post_init__(self) -> None:
        if "proprio" not in self.features:
            raise ValueError("features.proprio is missing")


def _from_attributes(attributes: Mapping[str, Any]) -> tuple[StoreInfo, dict[str, Codec]]:
    # JSON is the mode in which pydantic is strict about types and yet takes a list for a tuple.
    read = TypeAdapter(_Attributes).validate_json(json.dumps(attributes), strict=True)
    info = StoreInfo(
        fps=read.fps,
        cameras={name: Camera(camera.height, camera.width) for name, camera in read.cameras.items()},
        action=read.action,
        proprio=read.features["proprio"].names,
        origin=read.origin,
    )
    stored = read.cameras.items()
    return info, {name: make_codec(of.codec, of.group, of.quality, of.chroma) for name, of in stored}


def differences(ours: StoreInfo, theirs: StoreInfo) -> Sequence[str]:
    """Name the fields in which two descriptions of episodes disagree; the note on the origin may differ."""
    a, b = asdict(ours), asdict(theirs)
    return [f"{key}: {b[key]} there, {a[key]} here" for key in a if key != "origin" and a[key] != b[key]]
