"""Places of a run's recipe after files, folders or the run itself have moved; the run's copies."""

import json
from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError
from core.recipe.contents import Recipe
from core.recipe.places import find_places, keep_files, parse_moved, use_copies
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins

RECIPE = """
[data]
path = "data/a.zarr"
[vision_encoder]
name = "huggingface"
model = "vlm"
pretrained = true
train = false
[text_encoder]
name = "sentencepiece"
model = "words.model"
[backbone]
name = "huggingface"
model = "vlm"
pretrained = "vlm"
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe in tmp_path/home, whose model's folder holds a file of weights and small files."""
    home = tmp_path / "home"
    (home / "vlm").mkdir(parents=True)
    (home / "run").mkdir()
    (home / "data" / "a.zarr").mkdir(parents=True)
    (home / "vlm" / "model.safetensors").write_bytes(b"weights")
    (home / "vlm" / "config.json").write_text("{}")
    (home / "vlm" / "tokenizer.json").write_text("words")
    (home / "words.model").write_bytes(b"pieces")
    (home / "recipe.toml").write_text(RECIPE)
    return load_recipe(home / "recipe.toml", [], load_plugins())


def config(recipe: Recipe, kind: str) -> Path:
    return Path(recipe.parts[kind].config.model)  # type: ignore[index]


def test_a_run_keeps_the_small_files_of_its_parts_once(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "home" / "run"
    keep_files(recipe, recipe, run)
    files = {str(f.relative_to(run / "files")) for f in (run / "files").rglob("*") if f.is_file()}
    assert files == {"0-vlm/config.json", "0-vlm/tokenizer.json", "0-words.model"}


def test_parts_are_built_from_the_copies_and_weights_come_from_their_source(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "home" / "run"
    keep_files(recipe, recipe, run)
    own = use_copies(recipe, run)
    assert config(own, "vision_encoder") == config(own, "backbone") == run / "files" / "0-vlm"
    assert config(own, "text_encoder").read_bytes() == b"pieces"
    source = str(tmp_path / "home" / "vlm")
    assert own.parts["vision_encoder"].settings.pretrained == source
    assert own.parts["backbone"].settings.pretrained == source


@pytest.mark.parametrize(("contents", "is_copy"), [(b"pieces", True), (b"others", False)])
def test_a_new_place_is_the_same_file_if_its_contents_are(
    recipe: Recipe, tmp_path: Path, contents: bytes, is_copy: bool
) -> None:
    home = tmp_path / "home"
    keep_files(recipe, recipe, home / "run")
    (home / "new.model").write_bytes(contents)
    override = f"text_encoder.model={home}/new.model"
    other = load_recipe(home / "recipe.toml", [override], load_plugins())
    place = config(use_copies(other, home / "run"), "text_encoder")
    assert (place.parent.name == "files") is is_copy
    again = use_copies(other, home / "run")
    keep_files(other, again, home / "run")
    assert config(use_copies(other, home / "run"), "text_encoder").read_bytes() == contents


def test_moved_places_are_said_and_take_what_lies_in_them_along(
    recipe: Recipe, tmp_path: Path
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    away.mkdir()
    (home / "vlm").rename(away / "model")
    (home / "data").rename(away / "data")
    moved = parse_moved([f"{home}/vlm={away}/model", f"{home}/data={away}/data"])
    found = find_places(recipe, home / "run", moved)
    assert config(found, "backbone") == away / "model"
    assert found.parts["backbone"].settings.pretrained == str(away / "model")
    assert found.data.path == away / "data" / "a.zarr"
    assert config(found, "text_encoder") == home / "words.model", "this has not moved"


def test_what_has_moved_along_with_the_run_is_found(recipe: Recipe, tmp_path: Path) -> None:
    keep_files(recipe, recipe, tmp_path / "home" / "run")
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    found = find_places(recipe, tmp_path / "elsewhere" / "run", {})
    assert found.data.path == tmp_path / "elsewhere" / "data" / "a.zarr"
    assert found.parts["backbone"].settings.pretrained == str(tmp_path / "elsewhere" / "vlm")


def test_a_place_that_is_gone_stays_as_it_was(recipe: Recipe, tmp_path: Path) -> None:
    keep_files(recipe, recipe, tmp_path / "home" / "run")
    run = (tmp_path / "home" / "run").rename(tmp_path / "alone")
    (tmp_path / "home").rename(tmp_path / "gone")
    found = use_copies(find_places(recipe, run, {}), run)
    assert found.data.path == tmp_path / "home" / "data" / "a.zarr"
    assert config(found, "text_encoder").read_bytes() == b"pieces"


def test_mistakes_are_one_line(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected OLD=NEW, two places, got 'vlm'"):
        parse_moved(["vlm"])
    with pytest.raises(ConfigError, match="there is no file or folder '/nowhere'"):
        find_places(recipe, tmp_path, {"vlm": "/nowhere"})
    (tmp_path / "files.json").write_text(json.dumps({"folder": "x"}))
    with pytest.raises(CheckpointError, match=r"files\.json: cannot read it"):
        use_copies(recipe, tmp_path)


def test_a_run_of_an_earlier_version_has_no_copies(recipe: Recipe, tmp_path: Path) -> None:
    assert use_copies(recipe, tmp_path) == recipe
