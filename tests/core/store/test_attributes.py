"""The attributes of a store: what is refused, with the reason in one line."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from core.store.attributes import differences, read_attributes, to_attributes
from core.store.codecs import Codec, Jpeg, Zstd, feature_codec
from core.store.store import EpisodeStore
from tests.factories import FEATURES, STILL, make_info, make_store

ACTION = asdict(make_info().action)
GRIPPER = ACTION["grippers"][0]
CAMERA = {"height": 32, "width": 32, "codec": "zstd", "group": 8, "quality": None}
INFO = make_info(features=FEATURES)
SHIPPED = Path(__file__).parents[3] / "recipes" / "data" / "metaworld.zarr"


def test_what_is_no_store_or_too_new(tmp_path: Path, store: EpisodeStore) -> None:
    with pytest.raises(DataError, match=r"no episode store here.*joinery import"):
        EpisodeStore(tmp_path / "nothing.zarr")
    file = store.path / "zarr.json"
    content = json.loads(file.read_text())
    for change, message in (
        ({"min_reader_version": 99}, "readers of version 99, this one reads 3; upgrade"),
        ({"format": "something"}, "no episode store"),
        ({"action": {"names": ["x"]}}, "metadata is damaged"),
        (
            {
                "cameras": {
                    "front": {"height": 32, "width": 32, "codec": "webp", "group": 1, "quality": 1}
                }
            },
            "'webp'",
        ),
    ):
        file.write_text(json.dumps({**content, "attributes": {**content["attributes"], **change}}))
        with pytest.raises(DataError, match=message):
            EpisodeStore(store.path)
    file.write_text("{")
    with pytest.raises(DataError, match=r"zarr.json: unreadable"):
        EpisodeStore(store.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_reader_version": "1"}, "min_reader_version"),
        ({"min_reader_version": None}, "min_reader_version"),
        ({"fps": 0}, "fps 0.0 must be"),
        ({"fps": float("nan")}, "fps"),
        ({"cameras": []}, "cameras"),
        ({"cameras": {}}, "no cameras"),
        *(
            ({"cameras": {STILL: CAMERA | {"group": group}}}, f"cameras.{STILL}.group")
            for group in (0, -1, "8", 2**70)
        ),
        ({"cameras": {STILL: CAMERA | {"codec": "jpeg"}}}, "one frame a group"),
        ({"cameras": {STILL: CAMERA | {"quality": 0}}}, "quality"),
        *(({"cameras": {STILL: CAMERA | {"height": height}}}, "is empty") for height in (0, -1)),
        (
            {"cameras": {STILL: CAMERA, "top": CAMERA}},
            "promises a camera 'top', 00000000.json says otherwise",
        ),
        ({"action": None}, "action"),
        (
            {"action": ACTION | {"names": ["x", "y", "z"], "scale": [1, 1, 1], "grippers": []}},
            "76 frames and 3 names",
        ),
        (
            {"action": ACTION | {"grippers": [GRIPPER | {"open": -1.0}]}},
            "two different finite numbers",
        ),
        ({"action": ACTION | {"grippers": [GRIPPER, GRIPPER]}}, "the same dimension"),
        ({"action": ACTION | {"rate": 0}}, "rate 0.0"),
        ({"features": {}}, "features.proprio is missing"),
        ({"features": {"proprio": {"names": ["p0"]}}}, "proprio of .* and 1 names"),
        ({"origin": "\ud800"}, "hex escape"),
    ],
)
def test_damaged_metadata_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = make_store(tmp_path / "a.zarr").path / "zarr.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"attributes": content["attributes"] | change}))
    with pytest.raises(DataError, match=rf"^{file}: .*{message}.*import again$"):
        EpisodeStore(file.parent)


@pytest.mark.parametrize("attributes", [[], None, "text", {}])
def test_attributes_of_something_else(tmp_path: Path, attributes: Any) -> None:
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    with pytest.raises(DataError, match="holds no episode store; name one"):
        EpisodeStore(tmp_path)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Six episodes with every kind of feature, in several segments."""
    path = tmp_path_factory.mktemp("features") / "store.zarr"
    store = make_store(path, info=INFO, segment_bytes=60_000)
    assert len(list((path / "commits").iterdir())) > 1
    return store


def test_a_store_without_features_is_written_as_before(pristine_store: Path) -> None:
    attributes = json.loads((pristine_store / "zarr.json").read_text())["attributes"]
    assert (attributes["schema_version"], attributes["min_reader_version"]) == (1, 1)
    assert "named_features" not in attributes
    assert not [*pristine_store.glob("parts/*/feature")]


def test_a_store_with_features_is_closed_to_older_versions(pristine: EpisodeStore) -> None:
    attributes = json.loads((pristine.path / "zarr.json").read_text())["attributes"]
    assert attributes["min_reader_version"] == 2
    assert attributes["named_features"]["depth"] == {
        "shape": [48, 64, 1],
        "dtype": "uint16",
        "meaning": "depth",
        "unit": "mm",
        "codec": "zstd",
        "group": 8,
    }


def test_a_store_older_than_features_opens() -> None:
    store = EpisodeStore(SHIPPED)
    assert store.info.features == {}
    assert store.read(0).features == {}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Six episodes in one segment."""
    return make_store(tmp_path / "store.zarr", info=INFO).path


@pytest.mark.parametrize(
    "change",
    [{"dtype": "object"}, {"shape": [-1]}, {"group": 0}, {"codec": "jpeg"}, {"meaning": "smell"}],
)
def test_damaged_features(path: Path, change: dict[str, object]) -> None:
    text = json.loads((path / "zarr.json").read_text())
    text["attributes"]["named_features"]["force"] |= change
    (path / "zarr.json").write_text(json.dumps(text))
    with pytest.raises(DataError, match=r"zarr.json: metadata is damaged"):
        EpisodeStore(path)


def test_attributes_come_back_as_they_were_written(tmp_path: Path) -> None:
    codecs: dict[str, Codec] = {
        "front": Jpeg(quality=80, chroma="4:2:0"),
        "wrist": Zstd(block_size=3),
    }
    codecs |= {name: feature_codec(feature) for name, feature in FEATURES.items()}
    attributes = to_attributes(INFO, codecs)
    assert attributes["cameras"]["wrist"]["group"] == 3
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    assert read_attributes(tmp_path) == (INFO, codecs, False)
    assert "units" not in attributes["action"]  # as before there were units
    assert "units" not in attributes["features"]["proprio"]


def test_units_come_back_as_they_were_written(tmp_path: Path) -> None:
    action = replace(make_info().action, units=("m", "m", "m", "1"))
    info = replace(make_info(), action=action, proprio_units=("rad", "", "N"))
    attributes = to_attributes(info, dict.fromkeys(info.cameras, Jpeg(quality=80, chroma="4:4:4")))
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    assert read_attributes(tmp_path)[0] == info
    # episodes whose units are not known may be added to those whose units are, and vice versa
    assert differences(info, make_info()) == differences(make_info(), info) == []
    other = replace(info, proprio_units=("deg", "", "N"))
    assert differences(other, info) == [
        "proprio_units: ('rad', '', 'N') there, ('deg', '', 'N') here"
    ]


def test_differences_are_named_but_the_origin_may_differ() -> None:
    other = replace(make_info(), origin="elsewhere")
    assert differences(make_info(), other) == []
    assert differences(make_info(), replace(other, fps=20.0)) == ["fps: 20.0 there, 10.0 here"]
