import shutil
from pathlib import Path

import pytest
import torch

from core.store.store import EpisodeStore
from tests.factories import make_store

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pristine_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of two tasks and two cameras in three segments, which no test may change.

    It is written once, because writing waits for the disk.
    """
    return make_store(tmp_path_factory.mktemp("stores") / "store.zarr", segment_bytes=30_000).path


@pytest.fixture
def store(pristine_store: Path, tmp_path: Path) -> EpisodeStore:
    """A copy of `pristine_store` that a test may damage."""
    return EpisodeStore(Path(shutil.copytree(pristine_store, tmp_path / "store.zarr")))
