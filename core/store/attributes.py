"""What a store says about itself: the attributes of its root group, written and read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from core.episodes.episode import ActionConvention, Camera, Feature, StoreInfo
from core.errors import DataError
from core.store.codecs import Chroma, Codec, make_codec
from core.store.location import Location
from core.system.strict import from_plain, one_line

FORMAT = "joinery-episodes"
VERSION = 2  # of the schema, the newest that this code reads
WITHOUT_FEATURES = 1  # the schema of stores that have none


def to_attributes(info: StoreInfo, codecs: Mapping[str, Codec]) -> dict[str, Any]:
    """Return the attributes of a store's root group; without features, they say nothing of any.

    A store with features is closed to versions that know none, since they would append episodes
    without.
    """
    version = VERSION if info.features else WITHOUT_FEATURES
    attributes = {
        "format": FORMAT,
        "schema_version": version,
        "min_reader_version": version,
        "fps": info.fps,
        "features": {
            "action": {
                "dtype": "float32",
                "shape": [info.action.dim],
                "names": list(info.action.names),
            },
            "proprio": {
                "dtype": "float32",
                "shape": [len(info.proprio)],
                "names": list(info.proprio),
            },
        },
        "cameras": {
            name: asdict(camera)
            | {
                "codec": codec.name,
                "group": codec.group,
                "quality": codec.quality,
                "chroma": codec.chroma,
            }
            for (name, camera), codec in zip(
                info.cameras.items(), (codecs[n] for n in info.cameras), strict=True
            )
        },
        "action": asdict(info.action),
        "origin": info.origin,
    }
    if info.features:
        attributes["named_features"] = {
            name: asdict(feature) | {"codec": codecs[name].name, "group": codecs[name].group}
            for name, feature in info.features.items()
        }
    return attributes


def read_attributes(path: Location) -> tuple[StoreInfo, dict[str, Codec]]:
    """Read what a store says about itself, and the codec of each camera and each feature.

    Raises DataError if there is no store, or one that this version cannot read.
    """
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no episode store here; name one, or let `joinery import` make one at a new path"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path / 'zarr.json'}: unreadable ({error}); restore the file or import again"
        ) from error
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise DataError(
            f"{path}: holds no episode store; name one, or let `joinery import` make one at a new path"
        )
    wants = attributes.get("min_reader_version")
    if isinstance(wants, int) and wants > VERSION:
        raise DataError(
            f"{path}: written for readers of version {wants}, this one reads {VERSION}; upgrade joinery"
        )
    try:
        return _from_attributes(attributes)
    except ValueError as error:
        where = path / "zarr.json"
        raise DataError(
            f"{where}: metadata is damaged ({one_line(error)}); restore it or import again"
        ) from error


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


@dataclass(frozen=True, kw_only=True)
class _StoredFeature(Feature):
    """A named feature and how it is encoded."""

    codec: Literal["zstd"]
    group: Annotated[int, Gt(0), Le(2**16)]


@dataclass(frozen=True)
class _Numbers:
    """The names of the dimensions of the actions, or of the proprioception."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class _Attributes:
    """What is read of the attributes of a store's root group."""

    min_reader_version: int
    fps: float
    features: dict[str, _Numbers]
    cameras: dict[str, _StoredCamera]
    action: ActionConvention
    origin: str
    named_features: dict[str, _StoredFeature] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "proprio" not in self.features:
            raise ValueError("features.proprio is missing")


def _from_attributes(attributes: Mapping[str, Any]) -> tuple[StoreInfo, dict[str, Codec]]:
    read = from_plain(_Attributes, attributes)
    specification = [one.name for one in fields(Feature)]
    info = StoreInfo(
        fps=read.fps,
        cameras={
            name: Camera(camera.height, camera.width) for name, camera in read.cameras.items()
        },
        action=read.action,
        proprio=read.features["proprio"].names,
        origin=read.origin,
        features={
            name: Feature(**{key: getattr(stored, key) for key in specification})
            for name, stored in read.named_features.items()
        },
    )
    codecs = {
        name: make_codec(of.codec, of.group, of.quality, of.chroma)
        for name, of in read.cameras.items()
    }
    for name, stored in read.named_features.items():
        codecs[name] = make_codec(stored.codec, stored.group, None, None)
    return info, codecs


def differences(ours: StoreInfo, theirs: StoreInfo) -> Sequence[str]:
    """Name the fields in which two descriptions of episodes disagree; the note on the origin may
    differ.
    """
    a, b = asdict(ours), asdict(theirs)
    return [
        f"{key}: {b[key]} there, {a[key]} here" for key in a if key != "origin" and a[key] != b[key]
    ]
