"""A command line names a component and its settings."""

import pytest

from core.commands.components import find_component
from core.errors import ConfigError


def test_settings_take_precedence_over_defaults() -> None:
    defaults = {"fps": 5.0, "action": "moves"}
    component, config = find_component("dataset", "npz", ["fps=10"], defaults)
    assert component.name == "npz"
    assert (config.fps, config.action) == (10.0, "moves")


def test_an_unknown_name_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"format: no dataset is called 'nzp'; did you mean"):
        find_component("dataset", "nzp", [])
    with pytest.raises(ConfigError, match="environment: no environment is called 'moon'"):
        find_component("environment", "moon", [])


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as failure:
        find_component("dataset", "npz", ["fps", "colour=1", "mask=3"])
    assert len(failure.value.mistakes) == 3  # no key=value, an unknown key, and a wrong value
