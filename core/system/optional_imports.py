"""Imports of libraries that are not always installed."""

from importlib import import_module
from types import ModuleType

from core.errors import ConfigError


def import_optional(module: str, extra: str | None = None) -> ModuleType:
    """Import a library that may not be installed.

    extra: the extra of Joinery that installs the library, "lora" for example. If an extra is given,
        a failed import raises ConfigError, which says how to install the extra. If `extra` is None,
        a failed import raises ImportError.
    """
    try:
        return import_module(module)
    except ImportError as error:
        if extra is None:
            raise
        raise ConfigError(
            f"{module} cannot be imported ({error}): pip install 'joinery[{extra}]'"
        ) from None
