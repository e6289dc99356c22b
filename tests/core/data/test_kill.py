"""A writer that dies at any moment leaves a store that opens, holds whole episodes, and can be continued."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from core.data.store import EpisodeStore
from tests.factories import make_store

EPISODES, KILLS = 16, 10
WRITE = f"""
import sys
from pathlib import Path
import zarr  # imported before "ready", so that the moments below fall into the writing
from core.data.writer import StoreWriter
from tests.factories import make_episodes, make_info
episodes = make_episodes({EPISODES}, make_info())
print("ready", flush=True)
with StoreWriter(Path(sys.argv[1]), make_info(), part_bytes=1) as writer:
    for episode in episodes:
        if episode.id not in writer.committed:
            writer.append(episode)
"""


def start(path: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def contents(store: EpisodeStore) -> dict[str, bytes]:
    """Everything that can be read of each episode, checksums included on the way."""
    found = {}
    for e in range(len(store)):
        length = int(store.length[e])
        frames = np.zeros((2, length, 32, 32, 3), np.uint8)
        for out, camera in zip(frames, store.info.cameras, strict=True):
            store.read_frames(camera, e, 0, length, out)
        numbers = store.actions(e, 0, length).tobytes() + store.proprio(e, 0, length).tobytes()
        found[store.episode_id(e)] = store.instruction(e).encode() + numbers + frames.tobytes()
    return found


@pytest.mark.slow
def test_killed_writers_lose_nothing_that_was_committed(tmp_path: Path) -> None:
    whole = contents(make_store(tmp_path / "whole.zarr", EPISODES))
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
            found = contents(EpisodeStore(path))
            assert committed <= found.keys()
            assert all(whole[episode] == content for episode, content in found.items())
            committed = set(found)
            interrupted += 0 < len(found) < EPISODES
    assert interrupted, "no kill fell between two commits: the test proves nothing"
    last = start(path)
    last.communicate()
    assert last.returncode == 0
    assert contents(EpisodeStore(path)) == whole
