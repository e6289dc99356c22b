"""Named features end to end: from a writer through the store to the batch, bit for bit."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from core.cli import main as joinery
from core.episodes.episode import Episode, Feature, StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.episodes.renaming import NewNames
from core.episodes.text import decode_text
from core.errors import DataError
from core.formats.exporting import export_episodes
from core.formats.info import dump_info, load_info
from core.loading.dataset import Dataset
from core.loading.loader import Loader
from core.loading.mixture import Member, Mixture
from core.loading.view import StoreView, common_info, view_of
from core.loading.windows import Windows
from core.store.layout import chunk_file, commit_file, read_commit
from core.store.store import EpisodeStore
from core.store.verify import verify
from core.store.writer import StoreWriter, check_episode
from tests.damage import flip_bit
from tests.factories import FEATURES, contents, make_episode, make_episodes, make_info, make_store

INFO = make_info(features=FEATURES)
SHIPPED = Path(__file__).parents[3] / "recipes" / "data" / "metaworld.zarr"
T, H = 5, 2


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Six episodes with every kind of feature, in several segments."""
    path = tmp_path_factory.mktemp("features") / "store.zarr"
    store = make_store(path, info=INFO, segment_bytes=60_000)
    assert len(list((path / "commits").iterdir())) > 1
    return store


def frames_of(store: EpisodeStore, name: str, episode: int, start: int, stop: int) -> np.ndarray:
    feature = store.info.features[name]
    out = np.zeros((stop - start, *feature.shape), feature.dtype)
    store.read_frames(name, episode, start, stop, out)
    return out


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


# -------------------------------------------------------------------------------- what a feature is


def test_a_description_comes_back_from_another_format_exactly() -> None:
    assert load_info(json.loads(json.dumps(dump_info(INFO))), "here") == INFO
    plain = dump_info(make_info())
    del plain["features"]  # as it was before there were any
    assert load_info(plain, "here") == make_info()


# ---------------------------------------------------------------------------------------- the store


def test_a_store_gives_back_every_bit(pristine: EpisodeStore) -> None:
    assert pristine.info == INFO
    for number, episode in enumerate(make_episodes(6, INFO)):
        read = pristine.read(number)
        assert read.features.keys() == FEATURES.keys()
        assert all(same_bits(read.features[name], episode.features[name]) for name in FEATURES)
    assert decode_text(pristine.read(2).features["subtask"])[3] == "schritt 2.3 läuft"


@pytest.mark.parametrize("name", FEATURES)
def test_any_run_of_frames(pristine: EpisodeStore, name: str) -> None:
    for number, episode in enumerate(make_episodes(6, INFO)):
        for start, stop in (
            (0, len(episode)),
            (0, 1),
            (3, 9),
            (len(episode) - 1, len(episode)),
            (4, 4),
        ):
            assert same_bits(
                frames_of(pristine, name, number, start, stop), episode.features[name][start:stop]
            )


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), max_size=3).map(tuple),
    dtype=st.sampled_from(["bool", "uint16", "int8", "int64", "float16", "float64"]),
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_type(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    dtype: str,
    lengths: list[int],
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    feature = Feature(shape, dtype, "points")  # type: ignore[arg-type]
    info = make_info(cameras=("front",), size=8, features={"any": feature})
    path = tmp_path_factory.mktemp("any") / "store.zarr"
    arrays = [random.normal(0, 9, (length, *shape)).astype(dtype) for length in lengths]
    with StoreWriter(path, info) as writer:
        for number, array in enumerate(arrays):
            whole = make_episode(number, replace(info, features={}), len(array))
            writer.append(replace(whole, features={"any": array}))
    store = EpisodeStore(path)
    for number, array in enumerate(arrays):
        start, stop = sorted(random.integers(0, len(array) + 1, 2).tolist())
        assert same_bits(frames_of(store, "any", number, start, stop), array[start:stop])


def test_frames_that_lie_in_any_order_in_memory(tmp_path: Path) -> None:
    episode = make_episode(0, INFO)
    turned = {name: np.asfortranarray(array) for name, array in episode.features.items()}
    with StoreWriter(tmp_path / "a.zarr", INFO) as writer:
        writer.append(replace(episode, features=turned))
    read = EpisodeStore(tmp_path / "a.zarr").read(0)
    assert all(same_bits(read.features[name], array) for name, array in episode.features.items())


def test_small_features_take_little_room(tmp_path: Path) -> None:
    """A force of 24 bytes costs a segment one block of an episode, not one of eight frames."""
    info = make_info(features={"force": FEATURES["force"]})
    store = make_store(tmp_path / "a.zarr", info=info)
    commit = read_commit(commit_file(store.path, 0))
    assert commit.arrays["feature/force/end"].shape == (len(store),)


def test_other_features_are_not_appended(tmp_path: Path) -> None:
    path = make_store(tmp_path / "a.zarr", 1, info=INFO).path
    other = {**FEATURES, "force": replace(FEATURES["force"], unit="kN")}
    for info in (make_info(), make_info(features=other)):
        with pytest.raises(DataError, match="cannot append, the store disagrees: features"):
            StoreWriter(path, info)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"features \[\], expected \['depth', 'force'"),
        (
            {"force": np.zeros((11, 6))},
            r"episode 'reach/0', feature 'force': float64 \(11, 6\), expected float32",
        ),
        (
            {"depth": np.zeros((11, 48, 64), np.uint16)},
            r"feature 'depth': uint16 \(11, 48, 64\), expected uint16",
        ),
        (
            {"subtask": np.full((11, 64), 255, np.uint8)},
            r"episode 'reach/0', feature 'subtask', frame 0: no UTF-8",
        ),
        (
            {"force": np.full((11, 6), np.nan, np.float32)},
            r"frame 0: feature 'force' \[0\] is nan; correct or leave",
        ),
        (
            {"reward": np.float32([0, 1, np.inf, *[0] * 8])},
            r"frame 2: feature 'reward' \[\] is inf; correct or leave",
        ),
    ],
)
def test_what_no_writer_takes(change: dict[str, np.ndarray], message: str) -> None:
    episode = make_episode(0, INFO)
    features = {**episode.features, **change} if change else {}
    with pytest.raises(DataError, match=message):
        check_episode(replace(episode, features=features), INFO)


def test_missing_readings_of_depth_and_points_are_kept() -> None:
    info = make_info(features={"depth": Feature((4, 4, 1), "float32", "depth", "m")})
    depth = np.full((11, 4, 4, 1), np.nan, np.float32)
    depth[0] = np.inf
    check_episode(replace(make_episode(0, make_info()), features={"depth": depth}), info)


# ------------------------------------------------------------------------------------------- damage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Six episodes in one segment."""
    return make_store(tmp_path / "store.zarr", info=INFO).path


def feature_file(path: Path, name: str, array: str = "data") -> Path:
    return chunk_file(
        path / "parts" / read_commit(commit_file(path, 0)).segment, f"feature/{name}/{array}", 1
    )


@pytest.mark.parametrize("name", FEATURES)
def test_damage_is_found_and_named(path: Path, name: str) -> None:
    file = feature_file(path, name)
    flip_bit(file, at=0.0)
    with pytest.raises(
        DataError, match=f"feature/{name}/data/.*frame 0 of episode 'reach/0' is damaged or cut off"
    ):
        frames_of(EpisodeStore(path), name, 0, 0, 2)
    assert frames_of(EpisodeStore(path), name, 1, 0, 2).any()
    (damage,) = verify(path, jobs=1)
    assert damage.reasons == (f"{file}: does not match its checksum",)


def test_the_frame_is_the_first_of_the_damaged_block(path: Path) -> None:
    file = feature_file(path, "depth")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="frame 8 of episode 'push/5' is damaged or cut off"):
        frames_of(EpisodeStore(path), "depth", 5, 3, 11)
    with pytest.raises(DataError, match="frame 9 of episode 'push/5' is damaged or cut off"):
        frames_of(EpisodeStore(path), "depth", 5, 9, 11)


def test_a_repair_keeps_the_other_episodes(path: Path) -> None:
    before = contents(path)
    flip_bit(feature_file(path, "force"), at=0.0)
    assert joinery(["repair", str(path)]) == 0
    del before["reach/0"]
    assert contents(path) == before
    assert verify(path, jobs=1) == []


def test_a_segment_that_lacks_a_feature_is_refused(
    pristine_store: Path, path: Path, tmp_path: Path
) -> None:
    text = json.loads((path / "zarr.json").read_text())
    text["attributes"]["named_features"]["more"] = text["attributes"]["named_features"]["force"]
    (path / "zarr.json").write_text(json.dumps(text))
    with pytest.raises(
        DataError, match=r"zarr.json: promises a feature 'more', 00000000.json says otherwise"
    ):
        EpisodeStore(path)


# ------------------------------------------------------------------------------------------ batches


def member_of(view: StoreView, label: str = "") -> Member:
    action = Normalizer.fit(view.statistics["action"], view.info.action, "mean_std")
    proprio = ProprioNormalizer.fit(view.statistics["proprio"])
    windows = Windows(view.store, range(len(view.store)), T, H)
    return Member(Dataset(view, action, proprio, label), windows)


def loader_of(members: Sequence[Member], size: int = 8) -> Loader:
    return Loader(
        Mixture(members),
        batch_size=size,
        tokenize=lambda text: [1],
        threads=2,
        prefetch=1,
        device=torch.device("cpu"),
    )


def test_a_window_has_the_features_of_its_frames(pristine: EpisodeStore) -> None:
    """The last ones repeat past an episode's end, and features that the policy does not read are
    not there.
    """
    names = ("depth", "reward", "subtask")
    member = member_of(StoreView.plain(pristine, features=names))
    places = [(e, t) for e, length in enumerate(pristine.length.tolist()) for t in range(length)]
    for batch in loader_of([member]).once():
        assert tuple(batch.features) == names
        assert batch.present == {}
        for row in range(len(batch.instructions)):
            episode, start = places.pop(0)
            whole, last = pristine.read(episode).features, pristine.length.item(episode) - 1
            for name in names:
                assert batch.features[name].dtype == getattr(torch, FEATURES[name].dtype)
                expected = whole[name][np.minimum(np.arange(start, start + T), last)]
                np.testing.assert_array_equal(batch.features[name][row].numpy(), expected)
    assert not places


@pytest.mark.parametrize("name", ["depth", "force", "reward"])
def test_a_faster_store_is_read_at_the_slower_rate(
    tmp_path: Path, pristine: EpisodeStore, name: str
) -> None:
    info = replace(INFO, fps=20.0, action=replace(INFO.action, rate=20.0))
    store = make_store(tmp_path / "fast.zarr", 1, info=info)
    view = view_of(store, store.info, {}, common_info([pristine.info, store.info], (), [name]), ())
    assert view.period == 2
    batch = next(loader_of([member_of(view)], size=len(store.read(0))).once())
    whole = store.read(0).features[name]
    for start in range(len(whole)):
        frames = [start + 2 * t for t in range(T) if start + 2 * t < len(whole)]
        expected = whole[frames + [frames[-1]] * (T - len(frames))]
        np.testing.assert_array_equal(batch.features[name][start].numpy(), expected)


def test_a_store_that_lacks_a_feature_gives_zeros_and_a_mask(
    tmp_path: Path, pristine: EpisodeStore
) -> None:
    without = make_store(
        tmp_path / "b.zarr", 2, info=replace(INFO, features={"force": FEATURES["force"]})
    )
    info = common_info([without.info, pristine.info], (), ("force", "depth"))
    views = [view_of(store, store.info, {}, info, ()) for store in (without, pristine)]
    loader = loader_of([member_of(view, f"{number}") for number, view in enumerate(views)])
    for batch in loader.once():
        first = torch.tensor([name.startswith("0/") for name in batch.episodes])
        assert list(batch.present) == ["depth"]
        assert batch.present["depth"].tolist() == (~first).tolist()
        assert batch.embodiment is not None
        assert batch.embodiment.tolist() == (~first).long().tolist()
        assert not batch.features["depth"].numpy()[first.numpy()].any()
        assert batch.features["force"].numpy().reshape(len(first), -1).any(axis=1).all()


def test_one_name_for_two_things_is_refused(pristine: EpisodeStore) -> None:
    other = replace(
        pristine.info, features={**FEATURES, "depth": Feature((48, 64, 1), "float32", "depth", "m")}
    )
    with pytest.raises(
        DataError, match=r"feature 'depth': is uint16 \(48, 64, 1\), depth in mm, the policy's is f"
    ):
        view_of(pristine, pristine.info, {}, common_info([other, pristine.info], (), ["depth"]), ())
    with pytest.raises(DataError, match="feature 'depth': that name is taken"):
        common_info([make_info(cameras=("depth",)), pristine.info], (), ["depth"])


def test_a_camera_gets_no_features_name(pristine: EpisodeStore) -> None:
    with pytest.raises(DataError, match="cameras: feature 'depth': that name is taken; rename it"):
        NewNames({"depth": "front"}, {}).rename(pristine.info)


def test_a_batch_moves_as_a_whole(pristine: EpisodeStore) -> None:
    member = member_of(StoreView.plain(pristine, features=["depth"]))
    batch = replace(
        next(loader_of([member]).once()), present={"depth": torch.ones(8, dtype=torch.bool)}
    )
    moved = batch.to(torch.device("meta"))
    tensors = [
        moved.features["depth"],
        moved.present["depth"],
        moved.embodiment,
        moved.images["front"],
        moved.actions,
    ]
    assert all(tensor is not None and tensor.is_meta for tensor in tensors)


# ------------------------------------------------------------------------------------ other formats


class Sink:
    """Keeps what it is given."""

    def __init__(self, info: StoreInfo, out: Path) -> None:
        self.info, self.episodes = info, list[Episode]()
        out.mkdir()

    def append(self, episode: Episode) -> None:
        check_episode(episode, self.info)
        self.episodes.append(episode)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("holds_features", [False, True])
def test_a_format_gets_the_features_that_it_can_hold(
    tmp_path: Path, pristine: EpisodeStore, holds_features: bool
) -> None:
    sinks: list[Sink] = []

    def make(info: StoreInfo, out: Path) -> Sink:
        sinks.append(Sink(info, out))
        return sinks[0]

    export_episodes(
        pristine, make, tmp_path / "out", lambda done, total: None, holds_features=holds_features
    )
    assert len(sinks[0].episodes) == 6
    assert sinks[0].info.features == (FEATURES if holds_features else {})


def test_what_is_left_out_is_said(
    tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("h5py")
    assert joinery(["write", "robomimic", str(path), str(tmp_path / "out.hdf5")]) == 0
    assert (
        "robomimic has no place for features; left out: depth, force, points, reward, subtask"
        in (" ".join(capsys.readouterr().out.split()))
    )


def test_a_stores_features_are_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert joinery(["show", str(path), "--html", str(path.with_name("page.html"))]) == 0
    printed, page = capsys.readouterr().out, path.with_name("page.html").read_text(encoding="utf-8")
    assert "feature depth: uint16 (48, 64, 1), depth in mm" in printed
    assert "feature subtask: uint8 (64,), text" in printed
    assert "uint16 (48, 64, 1), depth in mm" in page


def test_a_folder_of_npz_files_has_features(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(2):
        episode = make_episode(number, INFO)
        arrays = {
            "rgb": episode.images["front"],
            "action": episode.actions,
            "d": episode.features["depth"],
        }
        swapped = {"f": episode.features["force"].astype(">f4"), "extra": episode.images["wrist"]}
        np.savez(tmp_path / "source" / f"{number}.npz", **arrays, **swapped)
    (tmp_path / "map.toml").write_text("""
fps = 10
instruction = "go"
[features]
depth = { column = "d", meaning = "depth", unit = "mm" }
force = { column = "f", meaning = "force", unit = "N" }
wide = { column = "extra", meaning = "rgb" }
""")
    words = [
        "npz",
        str(tmp_path / "source"),
        str(tmp_path / "a.zarr"),
        "--mapping",
        str(tmp_path / "map.toml"),
    ]
    assert joinery(["import", *words, "--jobs", "1"]) == 0
    store = EpisodeStore(tmp_path / "a.zarr")
    assert list(store.info.cameras) == ["rgb"]
    assert store.info.features["wide"] == Feature((32, 32, 3), "uint8", "rgb")
    for number in range(2):
        read, episode = store.read(number).features, make_episode(number, INFO)
        assert same_bits(read["depth"], episode.features["depth"])
        assert same_bits(read["force"], episode.features["force"])
        assert same_bits(read["wide"], episode.images["wrist"])
