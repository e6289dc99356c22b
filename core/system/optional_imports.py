"""Imports of libraries that are not always installed."""

import sys
from importlib import import_module, metadata
from types import ModuleType

from core.errors import ConfigError


def import_optional(
    module: str, extra: str | None = None, *, distribution: str | None = None
) -> ModuleType:
    """Import a library that may not be installed.

    extra: the extra that installs the library, "lora" for example. If an extra is given, a failed
        import raises ConfigError, which says how to install the extra. If `extra` is None, a failed
        import raises ImportError.
    distribution: the package whose extra it is, "joinery" for example; default: the package that
        installed the calling module.
    """
    try:
        return import_module(module)
    except ImportError as error:
        if extra is None:
            raise
        caller = sys._getframe(1).f_globals.get("__name__", "")
        raise missing_library(module, error, extra, distribution, caller) from error


def missing_library(
    module: str, error: ImportError, extra: str, distribution: str | None, caller: str
) -> ConfigError:
    """Return an error that says how to install a missing library.

    caller: dotted name of the module that needs it, which tells the package if that is None.
    """
    package = distribution or _distribution_of(caller)
    advice = f"pip install '{package}[{extra}]'"
    if package is None:
        advice = f"install the extra '{extra}' of the package that needs it"
    return ConfigError(f"{module} cannot be imported ({error}): {advice}")


def _distribution_of(module: str) -> str | None:
    """Return the name of the package that installed a module; None if it is not known."""
    package = module.partition(".")[0]
    if package in ("core", "plugins"):
        return "joinery"
    return next(iter(metadata.packages_distributions().get(package, ())), None)
