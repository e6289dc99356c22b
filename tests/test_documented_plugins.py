"""The plugins that the documentation shows whole pass the contract tests."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from core.errors import ConfigError
from core.weights import Pretrained
from tests.core.testing.failing import failures

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def shown(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module of a page's code block that defines a class."""
    page, name = request.param
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    (block,) = [block for block in blocks if f"\nclass {name}" in block]
    module = ModuleType(f"documented_{name.strip('(:').lower()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        exec(compile(block, page, "exec"), module.__dict__)
        yield module


@pytest.mark.parametrize("shown", [("environments.md", "Line(")], indirect=True)
def test_the_environment(shown: ModuleType) -> None:
    assert not failures("environment", shown.Line, shown.LineConfig())


@pytest.mark.parametrize("shown", [("exporting.md", "Lines:")], indirect=True)
def test_the_exporter(shown: ModuleType) -> None:
    assert not failures("exporter", shown.Lines, shown.LinesConfig())


@pytest.mark.parametrize("shown", [("writing-a-plugin.md", "Patches(")], indirect=True)
def test_the_encoder_with_published_weights(shown: ModuleType, tmp_path: Path) -> None:
    config = shown.PatchesConfig(image_size=32, width=16)
    assert not failures("vision_encoder", shown.Patches, config)
    one, other = (shown.Patches(config, cameras={"top": (3, 8, 8)}) for _ in range(2))
    published = {f"encoder.{name}": tensor for name, tensor in one.state_dict().items()}
    save_file(published, tmp_path / "whole.safetensors")
    other.load_pretrained(Pretrained(str(tmp_path / "whole.safetensors")))
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in one.state_dict().items())
    del published["encoder.positions"]
    save_file(published, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match="missing: positions"):
        other.load_pretrained(Pretrained(str(tmp_path / "part.safetensors")))
