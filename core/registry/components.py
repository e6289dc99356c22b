"""Names -> components, one registry per kind of part."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from inspect import signature
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt
from docstring_parser import parse_from_object

from core.errors import PluginError
from core.registry.hookspecs import Build, ComponentKind
from core.registry.part_settings import OF_KIND, PartSettings

KINDS: tuple[ComponentKind, ...] = get_args(ComponentKind)
SETTINGS_OF_EVERY_PART = frozenset({"name", *(f.name for f in fields(PartSettings))})
SETTINGS_OF_KIND = {
    kind: frozenset(f.name for f in fields(settings)) for kind, settings in OF_KIND.items()
}
SETTINGS_OF_KIND["policy_head"] |= SETTINGS_OF_KIND[
    "auxiliary"
]  # every head may be an auxiliary one


@dataclass(frozen=True)
class Parameter:
    """One key of a component's configuration, as listings and the JSON Schema show it."""

    name: str
    type: str
    default: Any  # MISSING: the recipe must say it
    meaning: str


@dataclass(frozen=True)
class Plugin:
    """A module with hooks, and the distribution that brought it."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"'{self.name}' ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Component:
    """What a plugin registered: `build(config, ...)` makes the part."""

    kind: ComponentKind
    name: str
    config: type
    build: Build
    plugin: Plugin

    @property
    def parameters(self) -> list[Parameter]:
        """The configuration's fields with their types, defaults and meanings."""
        return parameters_of(self.config)


@dataclass
class Registry:
    """The components of one kind."""

    kind: ComponentKind
    components: dict[str, Component] = field(default_factory=dict)

    def add(self, component: Component) -> None:
        """Add a component; raises PluginError for a name that is taken, TypeError for a misuse of
        `register`.
        """
        where = f"plugin {component.plugin} registers {self.kind} '{component.name}'"
        if (other := self.components.get(component.name)) is not None:
            raise PluginError(
                f"{where}, but plugin {other.plugin} has that name already: rename or uninstall one"
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", component.name):
            raise TypeError(f"{where}: a name is lower-case letters, digits and underscores")
        if not _is_frozen_dataclass(component.config):
            raise TypeError(f"{where}: its config {component.config!r} must be a frozen dataclass")
        every = SETTINGS_OF_EVERY_PART | SETTINGS_OF_KIND.get(self.kind, frozenset())
        if reserved := every & {f.name for f in fields(component.config)}:
            raise TypeError(
                f"{where}: its config redefines {sorted(reserved)}, which every part has already"
            )
        if not callable(component.build):
            raise TypeError(f"{where}: build {component.build!r} is not callable")
        self.components[component.name] = component

    def get(self, name: str) -> Component | None:
        """Return the component of that name, or None."""
        return self.components.get(name)

    def __iter__(self) -> Iterator[Component]:
        return iter(sorted(self.components.values(), key=lambda component: component.name))


def call_build(build: Build, config: Any, offered: Mapping[str, Any]) -> Any:
    """Call a build with those of the offered arguments that it names, as pluggy calls a hook."""
    parameters = signature(build).parameters.values()
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {parameter.name for parameter in parameters}
    return build(
        config, **{name: value for name, value in offered.items() if any_name or name in named}
    )


def unoffered(build: Build, offered: Collection[str]) -> list[str]:
    """What a build must have, beside its config, and is not offered."""
    _, *others = signature(build).parameters.values()
    required = [
        p.name
        for p in others
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    return [name for name in required if name not in offered]


def parameters_of(config: type) -> list[Parameter]:
    """List a dataclass's fields; what each means stands in a docstring below it."""
    meanings = _meanings(config)
    types = get_type_hints(config, include_extras=True)
    return [
        Parameter(f.name, _type_name(types[f.name]), _default(f), meanings.get(f.name, ""))
        for f in fields(config)
    ]


def _default(parameter: Any) -> Any:
    return (
        parameter.default_factory()
        if parameter.default_factory is not MISSING
        else parameter.default
    )


def _meanings(config: type) -> dict[str, str]:
    """The texts below the fields of a dataclass and of those that it is derived from, by field."""
    meanings: dict[str, str] = {}
    for base in reversed([base for base in config.__mro__ if is_dataclass(base)]):
        for parameter in parse_from_object(base).params:
            meanings[parameter.arg_name] = " ".join((parameter.description or "").split())
    return meanings


def _type_name(annotation: Any) -> str:
    """Write a type as a reader of recipes would: `int > 0`, `'rms' | 'layer'`, `path | unset`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for limit in arguments[1:] if isinstance(limit, BaseMetadata)]
        return " ".join([_type_name(arguments[0]), *map(_limit, limits)])
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is not None:
        return f"{_type_name(origin)}[{', '.join('...' if a is ... else _type_name(a) for a in arguments)}]"
    return {"NoneType": "unset", "Path": "path"}.get(annotation.__name__, str(annotation.__name__))


def _limit(limit: Any) -> str:
    match limit:
        case Gt(gt=bound):
            return f"> {bound}"
        case Ge(ge=bound):
            return f">= {bound}"
        case Lt(lt=bound):
            return f"< {bound}"
        case Le(le=bound):
            return f"<= {bound}"
    return str(limit)


def _is_frozen_dataclass(config: Any) -> bool:
    return isinstance(config, type) and is_dataclass(config) and config.__dataclass_params__.frozen  # type: ignore[attr-defined]
