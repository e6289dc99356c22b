import pytest

from core.errors import ConfigError, DataError, PluginError
from core.registry.building import build_component, check_members
from core.registry.components import Component, Plugin

PLUGIN = Plugin("mamba_plugin", "joinery-mamba", "0.3", __name__)


def built(build, offered=None):
    component = Component("backbone", "mamba", int, build, PLUGIN)
    return build_component(component, "config", offered or {"width": 3}, "backbone.name: 'mamba'")


def test_a_build_gets_what_it_names():
    assert built(lambda config, width: (config, width)) == ("config", 3)


def without_arguments():
    return None


def with_more(config, *, depth):
    return None


def positional_only(config, width, /):
    return None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (without_arguments, "its build must take a config, then any of width by name"),
        (with_more, "its build asks for depth, and Joinery offers width beside the config"),
        (positional_only, "its build must take a config, then any of width by name"),
    ],
)
def test_a_build_that_cannot_be_called_is_told_what_is_right(build, message):
    place = r", at .*test_building\.py:\d+; choose another component, or change the plugin$"
    with pytest.raises(ConfigError, match=message) as caught:
        built(build)
    assert str(caught.value).startswith(
        "backbone.name: 'mamba' of plugin 'mamba_plugin' (joinery-mamba 0.3): "
    )
    with pytest.raises(ConfigError, match=place):
        built(build)


def raises(config):
    raise KeyError("no such layer")


def leaves(config):
    raise SystemExit("no licence")


def lacks_a_library(config):
    import no_such_library  # noqa: F401


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (raises, r"its build raised KeyError: 'no such layer', at .*py:\d+; mend the plugin"),
        (leaves, r"its build raised SystemExit: no licence, at .*py:\d+; mend the plugin"),
        (lacks_a_library, "install the library that offers 'no_such_library', or use another"),
    ],
)
def test_a_build_that_raises_is_one_line(build, message):
    with pytest.raises(PluginError, match=message) as caught:
        built(build)
    assert caught.value.__cause__ is not None


def test_errors_of_joinery_stay_as_they_are():
    def build(config):
        raise DataError("backbone.path: no file; name another")

    with pytest.raises(DataError, match=r"^backbone\.path: no file; name another$"):
        built(build)


def test_missing_members_are_named():
    component = Component("dataset", "csv", int, raises, PLUGIN)
    check_members(component, [], ["append"], "format 'csv'")
    with pytest.raises(ConfigError, match=r"built a list without ids, read, at .*test_building"):
        check_members(component, [], ["append", "ids", "read"], "format 'csv'")
