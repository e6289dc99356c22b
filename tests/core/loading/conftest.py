"""Two stores that differ in whatever can be brought together."""

from pathlib import Path

import pytest

from core.store.store import EpisodeStore
from tests.factories import make_store
from tests.mixtures import other_info


@pytest.fixture
def stores(pristine_store: Path, tmp_path: Path) -> list[EpisodeStore]:
    return [EpisodeStore(pristine_store), make_store(tmp_path / "other.zarr", 4, info=other_info())]
