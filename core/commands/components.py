"""Find the component that a command line names, and check its settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import ConfigError
from core.recipe.checking import fill, parse_settings
from core.registry.catalogue import load_plugins
from core.registry.components import Component
from core.registry.hookspecs import ComponentKind


def find_component(
    kind: ComponentKind,
    name: str,
    settings: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
) -> tuple[Component, Any]:
    """Return the component that is called `name`, and its configuration.

    settings: texts `key=value`; a setting takes precedence over the default for its key, and
        `key=unset` removes it.

    Raises ConfigError if the name is unknown, or if a setting is wrong; the error has one line for
    each wrong setting.
    """
    catalogue = load_plugins()
    component = catalogue[kind].get(name)
    if component is None:
        label = "environment" if kind == "environment" else "format"
        raise ConfigError(f"{label}: {catalogue.explain_unknown(kind, name)}")
    mistakes: list[str] = []
    values = parse_settings(settings, mistakes, defaults)
    config = fill(component.config, values, name, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return component, config
