"""Episode stores in an object store: a local S3 server behind a proxy that spoils answers."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file

pytest.importorskip("obstore")
pytest.importorskip("moto")
pytest.importorskip("flask")

from core.cli import main as joinery
from core.errors import ConfigError, DataError
from core.loading.loader import Loader
from core.loading.mixture import Mixture
from core.store import objects
from core.store.cache import Cache
from core.store.objects import Objects
from core.store.store import EpisodeStore
from tests.core.training.conftest import RECIPE
from tests.factories import FEATURES, MOVING, contents, images_of, make_info, make_store
from tests.mixtures import make_member
from tests.s3 import BUCKET, Proxy, delete, endpoint, moto, put, upload

STORE = f"s3://{BUCKET}/store.zarr"


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with moto() as port:
        yield port


@pytest.fixture(scope="module")
def uploaded(server: int, pristine_store: Path) -> int:
    """The server, with `pristine_store` in it."""
    upload(pristine_store, server, "store.zarr")
    return server


@pytest.fixture
def proxy(uploaded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What s3:// means in a test, with a cache of its own; retries do not wait long."""
    monkeypatch.setenv("JOINERY_CACHE", str(tmp_path / "cache"))
    backoff = {
        "init_backoff": timedelta(milliseconds=1),
        "max_backoff": timedelta(milliseconds=5),
        "base": 2,
    }
    monkeypatch.setattr(objects, "RETRIES", {**objects.RETRIES, "backoff": backoff})
    with Proxy(uploaded) as running:
        for name, value in endpoint(running.port).items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def local(pristine_store: Path) -> EpisodeStore:
    return EpisodeStore(pristine_store)


def cached_files(tmp_path: Path) -> list[Path]:
    return sorted(file for file in (tmp_path / "cache").rglob("*") if file.is_file())


# -------------------------------------------------------------------------------- the same as local


def test_a_remote_store_is_what_was_uploaded(proxy: Proxy, local: EpisodeStore) -> None:
    remote = EpisodeStore(STORE)
    assert (remote.info, remote.codecs, remote.tasks) == (local.info, local.codecs, local.tasks)
    for name in ("length", "start", "task"):
        np.testing.assert_array_equal(getattr(remote, name), getattr(local, name))
    for feature in ("action", "proprio"):
        np.testing.assert_equal(
            asdict(remote.statistics[feature]), asdict(local.statistics[feature])
        )
    assert contents(STORE) == contents(local.path)


def test_a_web_server_and_google_storage_serve_as_well(
    proxy: Proxy, local: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contents(f"http://127.0.0.1:{proxy.port}/{BUCKET}/store.zarr") == contents(local.path)
    account = {"gcs_base_url": f"http://127.0.0.1:{proxy.port}", "disable_oauth": True}
    account |= {"client_email": "", "private_key": "", "private_key_id": ""}
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    assert contents(f"gs://{BUCKET}/store.zarr") == contents(local.path)


@pytest.mark.parametrize(("block", "run"), [(61, 3), (700, 8), (2**17, 8)])
def test_any_run_of_frames_is_the_same(
    proxy: Proxy, local: EpisodeStore, block: int, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "BLOCK", block)
    monkeypatch.setattr(objects, "RUN", run)
    remote = EpisodeStore(STORE)

    @settings(
        max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        camera = data.draw(st.sampled_from(sorted(local.info.cameras)))
        episode = data.draw(st.integers(0, len(local) - 1))
        start = data.draw(st.integers(0, int(local.length[episode])))
        stop = data.draw(st.integers(start, int(local.length[episode])))
        if data.draw(st.booleans()):
            remote.prepare([camera], [(episode, start)], stop - start)
        expected = images_of(local, camera, episode, start, stop)
        np.testing.assert_array_equal(images_of(remote, camera, episode, start, stop), expected)

    check()


def loader(store: EpisodeStore) -> Loader:
    return Loader(
        Mixture([make_member(store, window=4, horizon=3)]),
        batch_size=5,
        tokenize=lambda text: list(text.encode()),
        threads=2,
        prefetch=2,
        device=torch.device("cpu"),
    )


def test_the_loader_makes_the_same_batches(proxy: Proxy, local: EpisodeStore) -> None:
    batches = zip(loader(EpisodeStore(STORE)).once(), loader(local).once(), strict=True)
    for batch, expected in batches:
        assert batch.instructions == expected.instructions
        for camera, images in expected.images.items():
            assert torch.equal(batch.images[camera], images)
        assert torch.equal(batch.actions, expected.actions)


def test_a_store_crosses_to_another_process(proxy: Proxy, local: EpisodeStore) -> None:
    remote = pickle.loads(pickle.dumps(EpisodeStore(STORE)))
    expected = images_of(local, MOVING, 2, 1, 9)
    np.testing.assert_array_equal(images_of(remote, MOVING, 2, 1, 9), expected)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        actions = processes.submit(remote.actions, 2, 1, 9).result()
    np.testing.assert_array_equal(actions, local.actions(2, 1, 9))


FORK = """
import os, sys
import numpy as np
from core.store.store import EpisodeStore
from core.errors import DataError
store = EpisodeStore(sys.argv[1])
if (child := os.fork()) == 0:
    for read in (lambda: store.read_frames("wrist", 0, 0, 1, np.zeros((1, 32, 32, 3), np.uint8)),
                 lambda: EpisodeStore(sys.argv[1])):
        try:
            read()
        except DataError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_forked_process_is_told_so(proxy: Proxy) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, STORE], capture_output=True, text=True, timeout=60, check=True
    )
    assert [line.partition(": ")[2] for line in done.stdout.splitlines()] == [
        "cannot be read in a forked process; start processes with 'spawn' or 'forkserver'"
    ] * 2


# ------------------------------------------------------------------------------- requests and cache


def test_many_requests_are_in_flight_and_no_more_than_allowed(proxy: Proxy, tmp_path: Path) -> None:
    allowed = Objects(STORE, Cache(tmp_path, 10**9), in_flight=5)
    proxy.gather = 5  # each waits for four others: one after the other, they would wait for ever
    allowed.map(allowed.exists, [f"missing/{number}" for number in range(20)])
    assert proxy.most == 5


def test_what_a_batch_wants_is_asked_for_at_once(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "BLOCK", 700)
    remote = EpisodeStore(STORE)
    places = [(episode, 2) for episode in range(6)]
    proxy.gather, proxy.most = 12, 0
    remote.prepare(sorted(remote.info.cameras), places, 4)
    for episode, start in places:
        for camera in remote.info.cameras:
            images_of(remote, camera, episode, start, start + 4)
    assert proxy.most >= 12  # two cameras of six episodes


def test_what_the_cache_holds_is_not_asked_for_again(proxy: Proxy, local: EpisodeStore) -> None:
    contents(STORE)
    before = len(proxy.requests)
    assert contents(STORE) == contents(local.path)
    again = [line.split()[1].partition("?")[0] for line in proxy.requests[before:]]
    assert all(
        path.endswith((".json", f"/{BUCKET}")) for path in again
    )  # what may have been added meanwhile


def test_overlapping_windows_share_requests(proxy: Proxy) -> None:
    remote = EpisodeStore(STORE)
    before = len(proxy.requests)
    for start in range(8):
        images_of(remote, MOVING, 0, start, start + 3)
    assert len(proxy.requests) - before == 1


def test_a_cache_that_holds_next_to_nothing_still_serves(
    proxy: Proxy, local: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOINERY_CACHE_GB", "0.000005")  # 5 KB
    monkeypatch.setattr(objects, "BLOCK", 700)
    remote = EpisodeStore(STORE)
    for episode in range(6):
        np.testing.assert_array_equal(
            images_of(remote, MOVING, episode, 0, 11), images_of(local, MOVING, episode, 0, 11)
        )


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: bytes(len(data)), lambda data: b""]
)
def test_what_is_damaged_in_the_cache_is_fetched_anew(
    proxy: Proxy, local: EpisodeStore, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    contents(STORE)
    for file in cached_files(tmp_path):
        file.write_bytes(spoil(file.read_bytes()))
    assert contents(STORE) == contents(local.path)
    before = len(proxy.requests)
    assert contents(STORE) == contents(local.path)
    assert not [line for line in proxy.requests[before:] if "/parts/" in line]


# --------------------------------------------------------------------------------- a bad connection


@pytest.mark.parametrize("how", ["500", "503", "cut"])
def test_what_passes_is_tried_again(proxy: Proxy, local: EpisodeStore, how: str) -> None:
    tried: dict[str, int] = {}

    def twice(line: str) -> str | None:
        tried[line] = tried.get(line, 0) + 1
        return how if tried[line] <= 2 else None

    proxy.spoil = twice
    assert contents(STORE) == contents(local.path)
    assert min(tried.values()) == 3


def test_a_server_that_falls_silent_is_asked_again(
    proxy: Proxy, local: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        objects, "CLIENT", {**objects.CLIENT, "read_timeout": timedelta(seconds=0.3)}
    )
    silent = iter(["silent"] * 2)
    proxy.spoil = lambda line: next(silent, None) if "/cam/" in line else None
    assert contents(STORE) == contents(local.path)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            "500",
            r"store.zarr/zarr.json: cannot be read \(.*500.*\); check the address and the network",
        ),
        ("403", "store.zarr/zarr.json: no permission; check the credentials in the environment"),
    ],
)
def test_what_does_not_pass_is_said_in_one_line(proxy: Proxy, how: str, says: str) -> None:
    proxy.spoil = lambda _: how
    with pytest.raises(DataError, match=says) as caught:
        EpisodeStore(STORE)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://nobodys/store.zarr", "zarr.json: there is no such bucket; check the address"),
        (f"s3://{BUCKET}/other.zarr", "other.zarr: no episode store here; name one"),
        (
            "ftp://somewhere/store.zarr",
            "cannot read 'ftp://'; known: s3://, gs://, http://, https://",
        ),
        ("s3://", "s3://: names no bucket or server; check the address"),
    ],
)
def test_an_address_where_nothing_is(proxy: Proxy, url: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        EpisodeStore(url)
    assert len(str(caught.value).splitlines()) == 1


def test_a_server_that_is_not_there(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        DataError, match=r"zarr.json: cannot be read \(.*\); check the address and the network"
    ) as caught:
        EpisodeStore(STORE)
    assert len(str(caught.value).splitlines()) == 1


def test_a_web_server_without_ranges_is_refused(proxy: Proxy, pristine_store: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(pristine_store))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain:
        (serving := Thread(target=plain.serve_forever)).start()
        remote = EpisodeStore(f"http://127.0.0.1:{plain.server_port}")
        with pytest.raises(
            DataError, match="the server does not answer range requests; use one that does"
        ):
            images_of(remote, MOVING, 0, 0, 2)
        plain.shutdown()
        serving.join()


def test_missing_credentials_are_asked_for(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv(
        "AWS_METADATA_ENDPOINT", "http://127.0.0.1:9"
    )  # where a machine in the cloud gets its own
    with pytest.raises(
        DataError, match=r"zarr.json: no credentials; put them into the environment, or AWS_SKIP"
    ):
        EpisodeStore(STORE)


def test_a_missing_library_is_named(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"pip install 'joinery\[cloud\]'"):
        EpisodeStore(STORE)


# ------------------------------------------------------------------------------------------- damage


@pytest.fixture
def copy(proxy: Proxy, uploaded: int, store: EpisodeStore, tmp_path: Path) -> Callable[[str], str]:
    """Upload `store` under a name of the test's own; gives the keys of its objects."""
    name = f"{tmp_path.name}.zarr"
    upload(Path(str(store.path)), uploaded, name)
    return lambda key: f"{name}/{key}"


def object_of(store: EpisodeStore, pattern: str) -> str:
    assert isinstance(store.path, Path)
    return str(
        min(file for file in store.path.glob(pattern) if file.is_file()).relative_to(store.path)
    )


@pytest.mark.parametrize(
    ("array", "how"),
    [
        (f"cam/{MOVING}/data", "flipped"),
        (f"cam/{MOVING}/data", "cut"),
        (f"cam/{MOVING}/data", "gone"),
        (f"cam/{MOVING}/end", "cut"),
        (f"cam/{MOVING}/crc", "flipped"),
        ("action", "flipped"),
        ("action", "cut"),
        ("proprio", "gone"),
        ("episode/end", "gone"),
    ],
)
def test_a_damaged_object_is_named_and_read_once_mended(
    copy: Callable[[str], str],
    uploaded: int,
    store: EpisodeStore,
    local: EpisodeStore,
    array: str,
    how: str,
) -> None:
    key = object_of(store, f"parts/*/{array}/c/**/0")
    whole = (Path(str(store.path)) / key).read_bytes()
    url = f"s3://{BUCKET}/{copy('')}"
    if how == "gone":
        delete(uploaded, copy(key))
    else:
        put(
            uploaded,
            copy(key),
            whole[:-3] if how == "cut" else bytes([*whole[:-3], whole[-3] ^ 1, *whole[-2:]]),
        )
    for _ in range(2):
        with pytest.raises(DataError, match=f"s3://{BUCKET}/{copy(key)}: ") as caught:
            contents(url)
        assert len(str(caught.value).splitlines()) == 1
    put(uploaded, copy(key), whole)
    assert contents(url) == contents(local.path)


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_commit_that_is_missing_between_others_is_named(
    copy: Callable[[str], str], uploaded: int, proxy: Proxy, scheme: str
) -> None:
    delete(uploaded, copy("commits/00000001.json"))
    start = "s3:/" if scheme == "s3" else f"http://127.0.0.1:{proxy.port}"
    with pytest.raises(DataError, match=r"00000001\.json: missing, though 00000002\.json exists"):
        EpisodeStore(f"{start}/{BUCKET}/{copy('')}")


# ----------------------------------------------------------------------------------------- commands


def test_a_recipe_trains_from_a_url_as_from_a_folder(
    proxy: Proxy, local: EpisodeStore, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    for path, run in ((str(local.path), "local"), (STORE, "remote")):
        assert (
            joinery(
                [
                    "run",
                    str(recipe),
                    f"data.path={path}",
                    "train.steps=2",
                    "--output",
                    str(tmp_path / run),
                ]
            )
            == 0
        )
    assert f'path = "{STORE}"' in (tmp_path / "remote" / "recipe.toml").read_text()
    ours, theirs = (
        load_file(next((tmp_path / run).rglob("model.safetensors"))) for run in ("remote", "local")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_show_and_verify_read_a_url(
    copy: Callable[[str], str],
    uploaded: int,
    store: EpisodeStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"s3://{BUCKET}/{copy('')}".rstrip("/")
    assert joinery(["show", url]) == 0
    assert f"{url}: 6 episodes" in capsys.readouterr().out
    model = Path(str(store.path)).parent / "words.model"
    assert joinery(["tokenizer", "train", url, str(model), "--vocabulary", "280"]) == 0
    capsys.readouterr()
    assert joinery(["verify", url]) == 0
    assert "all 3 segments are as they were written" in capsys.readouterr().out
    key = object_of(store, f"parts/*/cam/{MOVING}/data/c/0")
    put(uploaded, copy(key), b"something else")
    assert joinery(["verify", url]) == 1
    assert f"{url}/{key}: does not match its checksum" in capsys.readouterr().out
    delete(uploaded, copy(key))
    assert joinery(["verify", url]) == 1
    assert f"{url}/{key}: no such object" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["import", "npz", "source"], ["collect", "tabletop"], ["repair"]]
)
def test_nothing_is_written_to_a_url(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        joinery([*words, STORE])
    assert (
        f"{STORE}: episodes are written to a folder; write them there, then upload it"
        in capsys.readouterr().err
    )


def test_features_are_read_as_frames_of_cameras_are(
    proxy: Proxy, server: int, tmp_path: Path
) -> None:
    """What is prepared is asked for at once, and every bit arrives."""
    local = make_store(tmp_path / "features.zarr", 3, info=make_info(features=FEATURES))
    upload(local.path, server, "features.zarr")
    remote = EpisodeStore(f"s3://{BUCKET}/features.zarr")
    assert (remote.info, remote.codecs) == (local.info, local.codecs)
    remote.prepare(["depth", "force"], [(0, 2), (2, 5)], 4)
    assert contents(f"s3://{BUCKET}/features.zarr") == contents(local.path)
