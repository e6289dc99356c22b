"""Calls a component's `build` with those things that Joinery offers and that `build` names."""

from collections.abc import Collection, Mapping, Sequence
from inspect import signature
from typing import Any

from core.errors import ConfigError, JoineryError
from core.registry.components import (
    Component,
    accepts_argument,
    call_build,
    missing_arguments,
)
from core.registry.faults import fault
from core.registry.hookspecs import Build
from core.system.tracebacks import place_of

CHANGE = "choose another component, or change the plugin"


def build_component(
    component: Component, config: Any, offered: Mapping[str, Any], where: str, advice: str = CHANGE
) -> Any:
    """Build a component; `build` receives only the offered arguments that its signature names.

    where: what messages call the component.
    advice: what to do about a `build` that cannot be called with what is offered.

    Raises ConfigError if `build` cannot be called so, and PluginError if it raises an error that is
    not one of Joinery's. Both name the plugin and a line of its code.
    """
    check_build(component, offered, where, advice)
    try:
        return call_build(component.build, config, offered)
    except JoineryError:
        raise
    except (Exception, SystemExit) as error:
        what = f"{where} of plugin {component.plugin}: its build raised"
        place = place_of(component.build)
        raise fault(what, error, component.plugin, place) from error


def check_build(
    component: Component, offered: Collection[str], where: str, advice: str = CHANGE
) -> None:
    """Raise ConfigError if `build` cannot be called with a config and what is offered."""
    if misfit := _misfit(component.build, offered):
        place = place_of(component.build)
        raise ConfigError(f"{where} of plugin {component.plugin}: {misfit}{place}; {advice}")


def check_members(component: Component, built: object, names: Sequence[str], where: str) -> None:
    """Raise ConfigError if what a component built lacks methods or attributes of its contract."""
    if missing := [name for name in names if not hasattr(built, name)]:
        place = place_of(component.build)
        raise ConfigError(
            f"{where} of plugin {component.plugin} built a {type(built).__name__} without "
            f"{', '.join(missing)}{place}; {CHANGE}"
        )


def _misfit(build: Build, offered: Collection[str]) -> str | None:
    """Say why `build` cannot be called with a config and what is offered; None if it can."""
    offers = ", ".join(offered) or "nothing"
    try:
        if missing := missing_arguments(build, offered):
            return (
                f"its build asks for {', '.join(missing)}, and Joinery offers {offers} "
                "beside the config"
            )
        accepted = {name for name in offered if accepts_argument(build, name)}
        signature(build).bind(None, **dict.fromkeys(accepted))
    except (TypeError, ValueError) as error:
        return f"its build must take a config, then any of {offers} by name ({error})"
    return None
