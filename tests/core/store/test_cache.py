import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from core.errors import DataError
from core.store.cache import Cache


def file_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_what_was_written_is_read_and_can_be_dropped(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    assert (cache.read("a", 3), cache.find("a"), cache.drop("a")) == (None, None, False)
    file = cache.write("a", b"one")
    cache.write("b", b"other")
    assert cache.read("a", 3) == b"one" == file.read_bytes()
    assert cache.find("a") == cache.path_for("a") == file
    assert cache.drop("a")
    assert (cache.read("a", 3), cache.read("b", 5)) == (None, b"other")


def test_a_file_of_another_size_is_not_what_was_written(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    cache.write("a", b"one").write_bytes(b"on")
    assert cache.read("a", 3) is None


@settings(max_examples=30)
@given(st.lists(st.integers(0, 500), max_size=120), st.integers(10_000, 20_000))
def test_the_limit_is_kept(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), limit)
    for number, size in enumerate(sizes):
        cache.write(str(number), bytes(size))
        assert file_size(cache.folder) <= limit
        assert cache.read(str(number), size) == bytes(size)  # the newest is never what goes


def test_two_caches_of_one_folder_keep_the_limit_together(tmp_path: Path) -> None:
    caches = [Cache(tmp_path, 20_000), Cache(tmp_path, 20_000)]
    for number in range(200):
        caches[number % 2].write(str(number), bytes(400))
        assert file_size(tmp_path) <= 20_000


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    for number in range(9):
        file = cache.write(str(number), bytes(900))
        os.utime(file, (number, number))
    assert cache.read("0", 900)
    assert cache.find("1")
    for number in range(9, 11):
        cache.write(str(number), bytes(900))
    kept = [number for number in range(11) if cache.read(str(number), 900) is not None]
    assert {0, 1, 9, 10} <= set(kept)
    assert not {2, 3} & set(kept)


def test_what_killed_writers_left_aside_goes_too(tmp_path: Path) -> None:
    aside = tmp_path / "ab" / ".left"
    aside.parent.mkdir()
    aside.write_bytes(bytes(5_000))
    os.utime(aside, (0, 0))
    cache = Cache(tmp_path, 10_000)
    for number in range(10):
        cache.write(str(number), bytes(900))
    assert not aside.exists()


def test_a_file_that_another_thread_is_writing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, rename = Cache(tmp_path, 1_000), os.replace

    def rename_after_another_write(aside: Path, file: Path) -> None:
        monkeypatch.setattr(os, "replace", rename)
        Cache(tmp_path, 1_000).write("b", bytes(950))  # measures the folder and finds it full
        rename(aside, file)

    monkeypatch.setattr(os, "replace", rename_after_another_write)
    assert cache.write("a", bytes(600)).read_bytes() == bytes(600)


WRITER = """
import sys
from itertools import count
from pathlib import Path
from core.store.cache import Cache
cache = Cache(Path(sys.argv[1]), 10**9)
print("ready", flush=True)
for number in count():
    cache.write(str(number % 50), bytes([number % 50]) * 300_000)
"""


def test_whoever_is_killed_leaves_no_half_file(tmp_path: Path) -> None:
    moment = random.Random(0)
    found = 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        with writer.stdout:
            writer.stdout.readline()
        time.sleep(moment.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        cache = Cache(tmp_path, 10**9)
        for number in range(50):
            if (file := cache.find(str(number))) is not None:
                assert file.read_bytes() == bytes([number]) * 300_000
                found += 1
    assert found


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        DataError,
        match=r"file: cannot write \(Not a directory\); make room, or name another folder",
    ):
        Cache(tmp_path / "file", 1_000).write("a", b"one")


def test_the_environment_says_where_and_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOINERY_CACHE", raising=False)
    monkeypatch.delenv("JOINERY_CACHE_GB", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    usual = Cache.from_environment()
    assert (usual.folder, usual.limit) == (tmp_path / "joinery" / "objects", 20 * 10**9)
    monkeypatch.setenv("JOINERY_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("JOINERY_CACHE_GB", "0.5")
    chosen = pickle.loads(pickle.dumps(Cache.from_environment()))
    assert (chosen.folder, chosen.limit) == (tmp_path / "here" / "objects", 5 * 10**8)


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOINERY_CACHE_GB", text)
    with pytest.raises(DataError, match=f"JOINERY_CACHE_GB={text}: expected a number above zero"):
        Cache.from_environment()


def test_a_span_of_a_file_is_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    cache.write("a", bytes(range(100)))
    assert cache.read("a", 100, slice(10, 13)) == bytes([10, 11, 12])
    assert cache.read("a", 99, slice(10, 13)) is None
