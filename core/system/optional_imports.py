"""Imports of libraries that need help, or that not everybody has."""

from importlib import import_module
from types import ModuleType

from core.errors import ConfigError


def import_optional(module: str, extra: str | None = None) -> ModuleType:
    """Import a library that not everybody has.

    extra: the optional extra that brings it; where it is missing, a ConfigError says how to install
    that.
    """
    try:
        return import_module(module)
    except ImportError as error:
        if extra is None:
            raise
        raise ConfigError(
            f"{module} cannot be imported ({error}): pip install 'joinery[{extra}]'"
        ) from None
