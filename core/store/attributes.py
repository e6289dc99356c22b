"""The metadata of a store: writes and reads the attributes of its root group."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from core.episodes.episode import ActionConvention, Camera, Feature, StoreInfo
from core.errors import DataError
from core.store.codecs import Chroma, Codec, make_codec
from core.store.location import Location, check_inside
from core.system.files import written_aside
from core.system.strict import from_plain, one_line, parse_json

FORMAT = "joinery-episodes"
VERSION = 3  # the newest schema that this code reads
VERSION_WITHOUT_FEATURES = 1  # the schema of stores without named features
VERSION_WITH_FEATURES = 2
VERSION_WITH_EDITS = 3  # the schema of stores that were corrected: core/store/edits.py


def to_attributes(info: StoreInfo, codecs: Mapping[str, Codec]) -> dict[str, Any]:
    """Return the attributes of a store's root group.

    A store without named features has the first schema, which every version of Joinery can read. A
    store with named features has the second schema, so that older versions refuse it: they would
    append episodes without the features.
    """
    version = VERSION_WITH_FEATURES if info.features else VERSION_WITHOUT_FEATURES
    cameras = {}
    for name, camera in info.cameras.items():
        codec = codecs[name]
        cameras[name] = asdict(camera) | {
            "codec": codec.name,
            "group": codec.block_size,
            "quality": codec.quality,
            "chroma": codec.chroma,
        }
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
                **({"units": list(info.proprio_units)} if info.proprio_units else {}),
            },
        },
        "cameras": cameras,
        "action": info.action.to_plain(),
        "origin": info.origin,
    }
    if info.assumed:
        attributes["assumed"] = dict(info.assumed)
    if info.features:
        attributes["named_features"] = {
            name: asdict(feature) | {"codec": codecs[name].name, "group": codecs[name].block_size}
            for name, feature in info.features.items()
        }
    return attributes


def read_attributes(path: Location) -> tuple[StoreInfo, dict[str, Codec], bool]:
    """Return a store's info as recorded, {camera or feature: its codec}, and whether it has edits.

    `core.store.edits.edited_info` returns the info after all corrections.

    Raises DataError if there is no store, or if this version cannot read it.
    """
    advice = "name one, or let `joinery import` make one at a new path"
    try:
        check_inside(path / "zarr.json", depth=1)
        attributes = parse_json((path / "zarr.json").read_text())["attributes"]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no episode store here; {advice}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path / 'zarr.json'}: unreadable ({one_line(error)}); restore the file or import "
            "again"
        ) from error
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise DataError(f"{path}: holds no episode store; {advice}")
    min_version = attributes.get("min_reader_version")
    if isinstance(min_version, int) and min_version > VERSION:
        raise DataError(
            f"{path}: written for readers of version {min_version}, this one reads {VERSION}; "
            "upgrade joinery"
        )
    try:
        info, codecs = _from_attributes(attributes)
        return info, codecs, min_version == VERSION_WITH_EDITS
    except ValueError as error:
        raise DataError(
            f"{path / 'zarr.json'}: metadata is damaged ({one_line(error)}); restore it or import "
            "again"
        ) from error


def require_reader(path: Path, version: int) -> None:
    """Let readers older than a version refuse the store; the file is replaced in one step."""
    file = path / "zarr.json"
    group = json.loads(file.read_text())
    if group["attributes"]["min_reader_version"] < version:
        group["attributes"]["schema_version"] = version
        group["attributes"]["min_reader_version"] = version
        with written_aside(file, durable=True) as aside:
            aside.write_text(json.dumps(group, indent=2))


@dataclass(frozen=True)
class _StoredCamera(Camera):
    """A camera and the codec of its frames; `group` is the codec's block size."""

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
    """A named feature and its codec; `group` is the codec's block size."""

    codec: Literal["zstd"]
    group: Annotated[int, Gt(0), Le(2**16)]


@dataclass(frozen=True)
class _Numbers:
    """The names and units of the dimensions of the actions or of the proprioception."""

    names: tuple[str, ...]
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Attributes:
    """The attributes of a store's root group that readers use."""

    min_reader_version: int
    fps: float
    features: dict[str, _Numbers]
    cameras: dict[str, _StoredCamera]
    action: ActionConvention
    origin: str
    assumed: dict[str, str] = field(default_factory=dict)
    named_features: dict[str, _StoredFeature] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "proprio" not in self.features:
            raise ValueError("features.proprio is missing")


def _from_attributes(attributes: Mapping[str, Any]) -> tuple[StoreInfo, dict[str, Codec]]:
    metadata = from_plain(_Attributes, attributes)
    feature_fields = [field.name for field in fields(Feature)]
    info = StoreInfo(
        fps=metadata.fps,
        cameras={
            name: Camera(camera.height, camera.width) for name, camera in metadata.cameras.items()
        },
        action=metadata.action,
        proprio=metadata.features["proprio"].names,
        proprio_units=metadata.features["proprio"].units,
        origin=metadata.origin,
        assumed=metadata.assumed,
        features={
            name: Feature(**{key: getattr(feature, key) for key in feature_fields})
            for name, feature in metadata.named_features.items()
        },
    )
    codecs = {
        name: make_codec(camera.codec, camera.group, camera.quality, camera.chroma)
        for name, camera in metadata.cameras.items()
    }
    for name, feature in metadata.named_features.items():
        codecs[name] = make_codec(feature.codec, feature.group, None, None)
    return info, codecs


def differences(new: StoreInfo, stored: StoreInfo) -> Sequence[str]:
    """Return one line for each field in which new episodes differ from a store.

    Where the data come from, what is assumed about them, and units that only one of the two knows
    are not compared.
    """
    pairs: Sequence[tuple[Any, Any, str]] = [
        (new, stored, ""),
        (new.action, stored.action, "action."),
    ]
    lines = []
    for new_part, stored_part, prefix in pairs:
        for entry in fields(new_part):
            here, there = getattr(new_part, entry.name), getattr(stored_part, entry.name)
            is_unknown = "units" in entry.name and not (here and there)
            if entry.name in ("origin", "assumed", "action") or is_unknown:
                continue
            if here != there:
                lines.append(f"{prefix}{entry.name}: {there} there, {here} here")
    return lines
