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
    caller = sys._getframe(1).f_globals.get("__name__", "")
    return import_for(caller, module, extra, distribution)


def import_for(caller: str, module: str, extra: str | None, distribution: str | None) -> ModuleType:
    """Do what `import_optional` does, for a function that other modules call.

    caller: dotted name of the module that needs the library, which tells the package whose extra
        it is if `distribution` is None.
    """
    try:
        return import_module(module)
    except ImportError as error:
        if extra is None:
            raise
        package = distribution or _distribution_of(caller)
        advice = f"pip install '{package}[{extra}]'"
        if package is None:
            advice = f"install the extra '{extra}' of the package that needs it"
        raise ConfigError(f"{module} cannot be imported ({error}): {advice}") from error


def _distribution_of(module: str) -> str | None:
    """Return the name of the package that installed a module; None if it is not known."""
    package = module.partition(".")[0]
    if package in ("core", "plugins"):
        return "joinery"
    return next(iter(metadata.packages_distributions().get(package, ())), None)
