"""What an episode store knows, in attributes of an HDF5 file."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from plugins.datasets.robomimic.sidecar import (
    EpisodeSidecar,
    Sidecar,
    read_episode_sidecar,
    read_sidecar,
    write_episode_sidecar,
    write_sidecar,
)
from tests.factories import make_info

h5py = pytest.importorskip("h5py", reason="needs h5py (pip install -e '.[robomimic]')")


@pytest.fixture
def group(tmp_path: Path) -> Any:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        yield file.create_group("data")


def test_sidecars_come_back_as_they_were(group: Any) -> None:
    sidecar = Sidecar(make_info(), ("pos", "grip"))
    write_sidecar(group, sidecar)
    assert read_sidecar(group, "a.hdf5") == sidecar
    episode = EpisodeSidecar("push/1", "push", "push the puck")
    write_episode_sidecar(group, episode)
    assert read_episode_sidecar(group, "a.hdf5, demo_1") == episode


def test_files_of_others_have_none(group: Any) -> None:
    assert read_sidecar(group, "a.hdf5") is None
    assert read_episode_sidecar(group, "a.hdf5, demo_1") is None


@pytest.mark.parametrize("content", ["{", "[]", "1", "{}"])
def test_a_damaged_sidecar_is_named(group: Any, content: str) -> None:
    group.attrs["joinery"] = content
    for read in (read_sidecar, read_episode_sidecar):
        with pytest.raises(DataError, match=r"^a.hdf5: the attribute 'joinery' is damaged"):
            read(group, "a.hdf5")
