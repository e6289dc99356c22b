import json
import sys
from importlib import metadata

import pytest

from core.errors import ConfigError
from core.system.optional_imports import import_optional


def test_a_library_that_is_installed_is_imported() -> None:
    assert import_optional("json") is json
    assert import_optional("json", extra="cloud") is json


def test_a_missing_library_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(
        ConfigError, match=r"^obstore cannot be imported \(.*\): pip install 'joinery\[cloud\]'$"
    ):
        import_optional("obstore", extra="cloud", distribution="joinery")


def test_the_extra_is_one_of_the_package_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"mamba": ["joinery-mamba"]})
    code = "from core import import_optional\nimport_optional('no_such_library', 'fast')"
    for module, advice in (
        ("mamba.layers", r"pip install 'joinery-mamba\[fast\]'"),
        ("plugins.mamba", r"pip install 'joinery\[fast\]'"),
        ("notebook", "install the extra 'fast' of the package that needs it"),
    ):
        with pytest.raises(ConfigError, match=advice):
            exec(code, {"__name__": module})


def test_a_missing_library_without_an_extra_is_an_import_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ImportError, match="obstore"):
        import_optional("obstore")
