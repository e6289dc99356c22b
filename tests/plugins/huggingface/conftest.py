"""Fixtures of the tests of transformers' models."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugins.huggingface.families import FAMILIES, Family, save_model


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a family, made when it is first asked for."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_model(root / name, FAMILIES[name].config)
        return made[name]

    return folder


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    """No test asks the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
