import json
import sys

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
        import_optional("obstore", extra="cloud")


def test_a_missing_library_without_an_extra_is_an_import_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ImportError, match="obstore"):
        import_optional("obstore")
