"""The components that plugins register; a registry for each kind finds components by name."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from inspect import signature
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt
from docstring_parser import ParseError, parse_from_object
from pydantic import TypeAdapter

from core.registry.hookspecs import Build, ComponentKind
from core.registry.part_settings import SETTINGS_OF_KIND, PartSettings

# names of components, and labels of auxiliary heads
NAME = re.compile(r"[a-z][a-z0-9_]*")
KINDS: tuple[ComponentKind, ...] = get_args(ComponentKind)
# the keys that a section of any part can have, in addition to the keys of its component
KEYS_OF_EVERY_PART = frozenset({"name", *(f.name for f in fields(PartSettings))})
KEYS_OF_KIND = {
    kind: frozenset(f.name for f in fields(settings)) for kind, settings in SETTINGS_OF_KIND.items()
}
KEYS_OF_KIND["policy_head"] |= KEYS_OF_KIND["auxiliary"]  # a head may also be in [[auxiliary]]


@dataclass(frozen=True)
class Parameter:
    """One key of a component's configuration, described for listings and for the JSON Schema.

    default: the default value; dataclasses.MISSING if a recipe must set the key.
    """

    name: str
    type: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class Plugin:
    """A module with hooks, and the name and version of the package that installed it.

    module: dotted name of the module; "" if it is unknown.
    """

    name: str
    distribution: str
    version: str
    module: str = ""

    @property
    def package(self) -> str:
        """The package whose code is the plugin's own: a built-in plugin, or a whole distribution.

        Other authors' helpers lie beside the module with the hooks, in the same package.
        """
        return self.module if self.module.startswith("plugins.") else self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"'{self.name}' ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Component:
    """A component that a plugin registered; `build(config, ...)` makes an instance of it."""

    kind: ComponentKind
    name: str
    config: type
    build: Build
    plugin: Plugin

    @property
    def parameters(self) -> list[Parameter]:
        """The configuration's fields with their types, defaults and meanings."""
        return parameters_of(self.config)

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of plugin {self.plugin}"


@dataclass
class Registry:
    """The components of one kind.

    contested: {name: the components that have it}, for names that several components have. A recipe
        cannot use such a name, because it would not say which of them it means.
    """

    kind: ComponentKind
    components: dict[str, Component] = field(default_factory=dict)
    contested: dict[str, list[Component]] = field(default_factory=dict)

    def add(self, component: Component) -> None:
        """Add a component; if another one has its name, neither can be used by that name.

        Raises TypeError if the name, the config or the build is invalid.
        """
        where = f"{self.kind} {component.name!r}"
        if not (isinstance(component.name, str) and NAME.fullmatch(component.name)):
            raise TypeError(f"{where}: a name is lower-case letters, digits and underscores")
        config: Any = component.config
        is_dataclass_type = isinstance(config, type) and is_dataclass(config)
        if not (is_dataclass_type and config.__dataclass_params__.frozen):
            raise TypeError(f"{where}: its config {config!r} must be a frozen dataclass")
        reserved = KEYS_OF_EVERY_PART | KEYS_OF_KIND.get(self.kind, frozenset())
        if conflicts := reserved & {f.name for f in fields(config)}:
            raise TypeError(
                f"{where}: its config redefines {sorted(conflicts)}, which every part has already"
            )
        if not callable(component.build):
            raise TypeError(f"{where}: build {component.build!r} is not callable")
        _check_keys(config, where)
        if component.name in self.contested:
            self.contested[component.name].append(component)
        elif (other := self.components.pop(component.name, None)) is not None:
            self.contested[component.name] = [other, component]
        else:
            self.components[component.name] = component

    def explain_contested(self, name: str) -> str:
        """Say which plugins registered a contested name, and what to do."""
        plugins = " and ".join(f"plugin {rival.plugin}" for rival in self.contested[name])
        return f"{self.kind} '{name}': {plugins} have it; uninstall one, or rename its component"

    def get(self, name: str) -> Component | None:
        """Return the component of that name, or None."""
        return self.components.get(name)

    def __iter__(self) -> Iterator[Component]:
        return iter(sorted(self.components.values(), key=lambda component: component.name))


def call_build(build: Build, config: Any, offered: Mapping[str, Any]) -> Any:
    """Call `build` with its config and with those offered arguments that it accepts."""
    arguments = {name: value for name, value in offered.items() if accepts_argument(build, name)}
    return build(config, **arguments)


def accepts_argument(build: Build, name: str) -> bool:
    """Whether `build` names this argument, or takes all arguments."""
    parameters = signature(build).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def missing_arguments(build: Build, offered: Collection[str]) -> list[str]:
    """Name the arguments, except config, that `build` requires but `offered` lacks."""
    return [
        p.name
        for p in list(signature(build).parameters.values())[1:]
        if p.default is p.empty
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and p.name not in offered
    ]


def _check_keys(config: type, where: str) -> None:
    """Raise TypeError, with the keys at fault, if a recipe cannot hold a config's fields."""
    try:
        TypeAdapter(config).json_schema()
        parameters_of(config)
        return
    except Exception as error:  # noqa: BLE001 - so do types, defaults and annotations of strangers
        reason = " ".join(str(error).split())
    try:
        types = get_type_hints(config, include_extras=True)
    except Exception as error:  # noqa: BLE001 - an annotation of text is evaluated here
        raise TypeError(f"{where}: the types of its config cannot be read: {error}") from None
    unfit = [f.name for f in fields(config) if not _has_schema(types[f.name])]
    if not unfit:
        raise TypeError(f"{where}: its config cannot be a section of a recipe: {reason}")
    keys = ", ".join(f"{name}: {getattr(types[name], '__name__', types[name])}" for name in unfit)
    raise TypeError(
        f"{where}: a recipe cannot hold {keys}; declare numbers, strings, booleans, paths, "
        "Literal[...], tuples or frozen dataclasses of these, and make the rest of them in build"
    )


def _has_schema(annotation: Any) -> bool:
    try:
        TypeAdapter(annotation).json_schema()
    except Exception:  # noqa: BLE001 - types may raise anything when a schema is made of them
        return False
    return True


def parameters_of(config: type) -> list[Parameter]:
    """List a dataclass's fields; the docstring below a field is taken as its meaning."""
    meanings: dict[str, str] = {}  # {field: meaning}, with the fields of base classes
    for base in reversed([base for base in config.__mro__ if is_dataclass(base)]):
        # The source of a class may be missing. It may also fail to parse, because the lines of a
        # class that is defined in a function are indented.
        with suppress(TypeError, OSError, SyntaxError, ParseError):
            for documented in parse_from_object(base).params:
                meanings[documented.arg_name] = " ".join((documented.description or "").split())
    types = get_type_hints(config, include_extras=True)
    parameters = []
    for f in fields(config):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        meaning = meanings.get(f.name, "")
        parameters.append(Parameter(f.name, _type_name(types[f.name]), default, meaning))
    return parameters


def _type_name(annotation: Any) -> str:
    """Write a type briefly, for example `int > 0`, `'rms' | 'layer'` or `path | unset`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for limit in arguments[1:] if isinstance(limit, BaseMetadata)]
        return " ".join([_type_name(arguments[0]), *map(_limit, limits)])
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is not None:
        names = ["..." if argument is ... else _type_name(argument) for argument in arguments]
        return f"{_type_name(origin)}[{', '.join(names)}]"
    return {"NoneType": "unset", "Path": "path"}.get(annotation.__name__, str(annotation.__name__))


def _limit(limit: Any) -> str:
    """Write the limit of a number, for example `> 0`."""
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
