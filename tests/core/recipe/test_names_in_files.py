"""Names that a run's or a model's files give lead to no file elsewhere."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.errors import CheckpointError, ConfigError, DataError
from core.recipe.places import RunFiles
from core.weights.pretrained import _open_shards


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_copies_of_a_run_lie_in_the_run(name: str, tmp_path: Path) -> None:
    content = {"folder": "runs/x", "places": {"a.b": "c"}, "copies": {"a.b": name}}
    (tmp_path / "files.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="which lies outside"):
        RunFiles.read(tmp_path)


@pytest.mark.parametrize("content", [[], {"folder": 1}, {"copies": {"a": 3}}, {"folder": "a"}])
def test_a_record_of_copies_of_another_form_is_damaged(content: object, tmp_path: Path) -> None:
    (tmp_path / "files.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"files.json: cannot read it"):
        RunFiles.read(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "{folder}/secret.safetensors"])
def test_shards_of_an_index_lie_beside_it(name: str, tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1)}, tmp_path / "secret.safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": {"weight": name.format(folder=tmp_path)}}))
    with pytest.raises(ConfigError, match="which lies outside"):
        _open_shards(index)
