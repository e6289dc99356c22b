"""The only door by which plugins come in: built-in and pip-installed ones alike, through one pluggy manager.

`python -m core.plugins` lists every plugin with its origin, version, components and their configuration.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from functools import cache
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

import pluggy

from core import hookspecs
from core.cli import command
from core.errors import PluginError, did_you_mean
from core.hookspecs import Build, Kind
from core.registry import KINDS, Component, Registry

ENTRY_POINT_GROUP = "joinery"
BUILT_INS = (
    "plugins.vision.timm_vit",
    "plugins.text.sentencepiece",
    "plugins.backbones.transformer",
    "plugins.action_tokens.learned",
    "plugins.heads.lstm",
    "plugins.datasets.metaworld_npz",
)
HOOKS: Mapping[str, Kind] = {
    "register_vision_encoders": "vision_encoder",
    "register_text_encoders": "text_encoder",
    "register_backbones": "backbone",
    "register_action_tokens": "action_tokens",
    "register_policy_heads": "policy_head",
    "register_datasets": "dataset",
    "register_environments": "environment",
}


@dataclass(frozen=True)
class Plugin:
    """A module with hooks, and the distribution that brought it."""

    name: str
    distribution: str
    version: str


@dataclass(frozen=True)
class Catalogue:
    """Everything the installed plugins offer, and which of them failed, with the reason."""

    registries: Mapping[Kind, Registry] = field(default_factory=lambda: {kind: Registry(kind) for kind in KINDS})
    plugins: list[Plugin] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, kind: Kind) -> Registry:
        return self.registries[kind]

    def explain_unknown(self, kind: Kind, name: object) -> str:
        """Say what there is instead of an unknown component, and which plugins might have had it but failed."""
        known = [component.name for component in self[kind]]
        if not isinstance(name, str):
            return f"expected the name of a {kind}{did_you_mean('', known)}"
        failures = "".join(f"; plugin '{plugin}' failed: {why}" for plugin, why in self.failures.items())
        return f"no {kind} is called '{name}'{did_you_mean(name, known)}{failures}"


@cache
def load_plugins() -> Catalogue:
    """Import every plugin and collect its components. A plugin that fails is noted, and the others go on.

    Raises PluginError when two plugins claim one name or a registration breaks the contract.
    """
    manager = pluggy.PluginManager(hookspecs.hookspec.project_name)
    manager.add_hookspecs(hookspecs)
    catalogue = Catalogue()
    for plugin, load in _discover():
        _admit(manager, catalogue, plugin, load)
    for hook, kind in HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            _call(implementation, catalogue, kind)
    return catalogue


def _discover() -> Iterator[tuple[Plugin, Any]]:
    version = metadata.version("joinery")
    for dotted_name in BUILT_INS:
        yield Plugin(dotted_name, "joinery", version), lambda dotted_name=dotted_name: import_module(dotted_name)
    for entry in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value)):
        distribution = entry.dist
        name, version = (distribution.name, distribution.version) if distribution else ("unknown", "unknown")
        yield Plugin(entry.name, name, version), entry.load


def _admit(manager: pluggy.PluginManager, catalogue: Catalogue, plugin: Plugin, load: Any) -> None:
    if other := next((known for known in catalogue.plugins if known.name == plugin.name), None):
        raise PluginError(
            f"two plugins are called '{plugin.name}', from {other.distribution} {other.version} and "
            f"{plugin.distribution} {plugin.version}: uninstall one"
        )
    try:
        module: ModuleType = load()
        manager.register(module, name=plugin.name)
    except Exception as error:  # noqa: BLE001 - a stranger's module may fail in any way, and only its own users suffer
        catalogue.failures[plugin.name] = f"{plugin.distribution} {plugin.version}: {type(error).__name__}: {error}"
    catalogue.plugins.append(plugin)


def _call(implementation: Any, catalogue: Catalogue, kind: Kind) -> None:
    plugin = next(known for known in catalogue.plugins if known.name == implementation.plugin_name)

    def register(name: str, config: type, build: Build) -> None:
        catalogue[kind].add(Component(kind, name, config, build, plugin.name, plugin.version))

    try:
        implementation.function(register)
    except PluginError:
        raise
    except Exception as error:  # noqa: BLE001 - see _admit
        catalogue.failures[plugin.name] = f"{plugin.distribution} {plugin.version}: {type(error).__name__}: {error}"


@command
def main(argv: list[str] | None = None) -> int:
    """List plugins."""
    parser = argparse.ArgumentParser(prog="joinery plugins", description="List plugins, components and their keys.")
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only this kind of component")
    arguments = parser.parse_args(argv)
    catalogue = load_plugins()
    for kind in [arguments.kind] if arguments.kind else KINDS:
        _print_kind(kind, catalogue)
    for name, reason in catalogue.failures.items():
        print(f"FAILED  {name} ({reason})")
    return 0


def _print_kind(kind: Kind, catalogue: Catalogue) -> None:
    print(kind)
    for component in catalogue[kind]:
        summary = (component.build.__doc__ or "").strip().partition("\n")[0]
        origin = next(p for p in catalogue.plugins if p.name == component.plugin)
        print(f"  {component.name}  [{origin.name}, {origin.distribution} {origin.version}]  {summary}")
        for parameter in component.parameters:
            required = parameter.default is MISSING
            default = "(required)" if required else f"= {'none' if parameter.default is None else parameter.default!r}"
            print(f"      {parameter.name}: {parameter.type} {default}\n          {parameter.meaning}")
    print()


if __name__ == "__main__":
    raise SystemExit(main())
