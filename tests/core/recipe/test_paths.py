from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core.recipe.contents import Part
from core.recipe.paths import absolute_from, change_config, change_part
from core.registry.components import Component, Plugin
from core.registry.part_settings import PartSettings

KEYS = {"backbone.pretrained"}


@dataclass(frozen=True)
class Entry:
    path: Path


@dataclass(frozen=True)
class Config:
    path: Path = Path("data.zarr")
    model: str = field(default="someone/model", metadata={"located": True})
    label: str = "someone"
    entries: tuple[Entry, ...] = ()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The recipe's folder, which is not the current folder; both have a folder "someone"."""
    for name in ("recipes/someone/model", "current/someone/model"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path / "recipes"


def test_paths_of_the_recipe_start_at_its_folder(folder):
    config = change_config(
        Config(entries=(Entry(Path("a")),)), "data", absolute_from(folder, set())
    )
    assert config.path == folder / "data.zarr"
    assert config.model == str(folder / "someone" / "model")
    assert config.entries == (Entry(folder / "a"),)
    assert config.label == "someone"  # a folder has this name, but the key names no place


def test_paths_of_the_command_line_start_at_the_current_folder(folder):
    keys = {"data.path", "data.model", "data.entries"}
    config = change_config(Config(entries=(Entry(Path("a")),)), "data", absolute_from(folder, keys))
    assert config.path == Path.cwd() / "data.zarr"
    assert config.model == str(Path.cwd() / "someone" / "model")
    assert config.entries == (Entry(Path.cwd() / "a"),)


@pytest.mark.parametrize(("overridden_keys", "start"), [(set(), "recipes"), (KEYS, "current")])
def test_the_source_of_weights_starts_where_other_paths_do(
    folder, tmp_path, overridden_keys, start
):
    component = Component("backbone", "any", Config, Config, Plugin("any", "any", "1"))
    part = Part(component, Config(), PartSettings(pretrained="someone/model"))
    settings = change_part(part, "backbone", absolute_from(folder, overridden_keys)).settings
    assert settings.pretrained == str(tmp_path / start / "someone" / "model")


def test_a_name_without_a_folder_stays_a_name_on_a_hub(folder):
    config = change_config(Config(model="nobody/model"), "data", absolute_from(folder, set()))
    assert config.model == "nobody/model"


def test_an_absolute_path_stays(folder, tmp_path):
    config = change_config(Config(path=tmp_path / "x"), "data", absolute_from(folder, set()))
    assert config.path == tmp_path / "x"
