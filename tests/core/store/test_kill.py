"""A writer killed at any moment leaves a store that opens, is whole, and can be continued."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.episodes.episode import Episode
from tests.factories import contents, make_episodes, make_info, make_store

EPISODES, KILLS = 16, 10
IMPORTED, IMPORT_KILLS = 40, 30
WRITE = f"""
import sys
from pathlib import Path
import zarr  # imported before "ready", so that the moments below fall into the writing
from core.store.writer import StoreWriter
from tests.factories import contents, make_episodes, make_info
episodes = make_episodes({EPISODES}, make_info())
print("ready", flush=True)
with StoreWriter(Path(sys.argv[1]), make_info(), segment_bytes=1) as writer:
    for episode in episodes:
        if episode.id not in writer.committed:
            writer.append(episode)
"""


IMPORT = """
import signal
import sys
from pathlib import Path
import zarr
from core.formats.importing import import_episodes
from tests.core.store.test_kill import SlowSource
def tell(done, total):
    print(done, flush=True)
if __name__ == "__main__":
    # a background job of a shell ignores it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", flush=True)
    source, size = SlowSource(float(sys.argv[3])), int(sys.argv[2])
    import_episodes(source, Path(sys.argv[1]), tell, jobs=2, segment_bytes=size)
"""


class SlowSource:
    """Episodes in memory, each of which takes a while to read, as those in a file do."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.info = make_info()
        self.episodes = {episode.id: episode for episode in make_episodes(IMPORTED, self.info)}

    def ids(self) -> list[str]:
        return [*self.episodes]

    def read(self, episode: str) -> Episode:
        time.sleep(self.seconds)
        return self.episodes[episode]


def start(
    path: Path, program: str = WRITE, segment_bytes: int = 50_000, seconds: float = 0.05
) -> subprocess.Popen[str]:
    root, script = Path(__file__).parents[3], path.parent / "program.py"
    script.write_text(program)
    command, environment = (
        [sys.executable, str(script), str(path), str(segment_bytes), str(seconds)],
        {**os.environ, "PYTHONPATH": str(root)},
    )
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_killed_writers_lose_nothing_that_was_committed(tmp_path: Path) -> None:
    whole = contents(make_store(tmp_path / "whole.zarr", EPISODES).path)
    path, moments = tmp_path / "killed.zarr", random.Random(0)
    committed: set[str] = set()
    killed, interrupted = 0, 0
    while killed < KILLS:
        process = start(path)
        time.sleep(moments.uniform(0.0, 0.8))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:  # it was done before the killer came: begin anew
            shutil.rmtree(path)
            committed = set()
            continue
        killed += 1
        if path.exists():
            found = contents(path)
            assert committed <= found.keys()
            assert all(whole[episode] == content for episode, content in found.items())
            committed = set(found)
            interrupted += 0 < len(found) < EPISODES
    assert interrupted, "no kill fell between two commits: the test proves nothing"
    last = start(path)
    last.communicate()
    assert last.returncode == 0
    assert contents(path) == whole


@pytest.mark.slow
def test_killed_imports_by_several_processes_lose_nothing_that_was_committed(
    tmp_path: Path,
) -> None:
    whole = contents(make_store(tmp_path / "whole.zarr", IMPORTED).path)
    path, moments = tmp_path / "killed.zarr", random.Random(0)
    committed, interrupted = 0, 0
    for _ in range(IMPORT_KILLS):
        process = start(path, IMPORT)
        time.sleep(moments.uniform(0.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if path.exists():
            found = contents(path)
            assert [*found] == [*whole][: len(found)]  # in the source's order
            assert all(whole[episode] == content for episode, content in found.items())
            assert len(found) >= committed
            interrupted += 0 < len(found) < IMPORTED
            committed = len(found)
        if process.returncode == 0 or committed == IMPORTED:
            shutil.rmtree(path)
            committed = 0
    assert interrupted > IMPORT_KILLS // 4, (
        "few kills fell between two commits: the test proves little"
    )
    last = start(path, IMPORT)
    last.communicate()
    assert last.returncode == 0
    assert [*contents(path).items()] == [*whole.items()]


def test_an_interrupted_import_keeps_what_it_has_read(tmp_path: Path) -> None:
    """Though the segment that it was filling is far from full."""
    path = tmp_path / "interrupted.zarr"
    process = start(path, IMPORT, segment_bytes=2**30, seconds=0.5)  # however late the signal is
    assert process.stdout is not None
    while process.stdout.readline() != "6\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    found = [*contents(path)]
    assert 6 <= len(found) < IMPORTED
    assert found == SlowSource().ids()[: len(found)]
