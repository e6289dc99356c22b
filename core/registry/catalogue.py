"""Finds plugins and collects their components.

Built-in and installed plugins are treated in the same way: one pluggy manager registers them all.
`joinery plugins` lists every plugin with its origin, its version, its components, and the
configuration of each component.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

import pluggy

from core.errors import PluginError, did_you_mean
from core.registry import hookspecs
from core.registry.components import KINDS, Component, Plugin, Registry
from core.registry.hookspecs import Build, ComponentKind

ENTRY_POINT_GROUP = "joinery"
BUILT_INS = (
    "plugins.vision.timm_vit",
    "plugins.vision.film_cnn",
    "plugins.text.sentencepiece",
    "plugins.text.none",
    "plugins.backbones.transformer",
    "plugins.backbones.identity",
    "plugins.vlms.huggingface",
    "plugins.vlms.kosmos2",
    "plugins.action_tokens.learned",
    "plugins.heads.lstm",
    "plugins.heads.discrete",
    "plugins.optimizers.adamw",
    "plugins.optimizers.muon",
    "plugins.optimizers.sgd",
    "plugins.datasets.metaworld_npz",
    "plugins.datasets.lerobot",
    "plugins.datasets.robomimic",
    "plugins.datasets.diffusion_policy",
    "plugins.datasets.rlds",
    "plugins.datasets.npz",
    "plugins.environments.tabletop",
    "plugins.environments.metaworld",
    "plugins.environments.calvin",
    "plugins.loggers.tensorboard",
    "plugins.loggers.csv",
    "plugins.loggers.wandb",
    "plugins.loggers.mlflow",
)
HOOKS: Mapping[str, ComponentKind] = {
    "register_vision_encoders": "vision_encoder",
    "register_text_encoders": "text_encoder",
    "register_backbones": "backbone",
    "register_action_tokens": "action_tokens",
    "register_policy_heads": "policy_head",
    "register_optimizers": "optimizer",
    "register_datasets": "dataset",
    "register_exporters": "exporter",
    "register_environments": "environment",
    "register_loggers": "logger",
    "register_callbacks": "callback",
}


@dataclass(frozen=True)
class Catalogue:
    """What the installed plugins offer, and why some of them failed.

    registries: {kind: registry of the components of that kind}.
    plugins: {name: plugin}.
    failures: {name of a plugin: reason}.
    """

    registries: Mapping[ComponentKind, Registry] = field(
        default_factory=lambda: {kind: Registry(kind) for kind in KINDS}
    )
    plugins: dict[str, Plugin] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, kind: ComponentKind) -> Registry:
        return self.registries[kind]

    def note_failure(self, plugin: Plugin, error: BaseException) -> None:
        """Note why a plugin failed, for the message that `explain_unknown` returns."""
        self.failures[plugin.name] = (
            f"{plugin.distribution} {plugin.version}: {type(error).__name__}: {error}"
        )

    def explain_unknown(self, kind: ComponentKind, name: object) -> str:
        """Say which components exist, and which failed plugins may offer the missing component."""
        known = [component.name for component in self[kind]]
        if not isinstance(name, str):
            return f"expected the name of a {kind}{did_you_mean('', known)}"
        failures = "".join(
            f"; plugin '{plugin}' failed: {reason}" for plugin, reason in self.failures.items()
        )
        return f"no {kind} is called '{name}'{did_you_mean(name, known)}{failures}"


@cache
def load_plugins() -> Catalogue:
    """Import every plugin and collect its components.

    The failure of a plugin is noted, and the others are still loaded. Raises PluginError if two
    plugins, or two components of one kind, have the same name.
    """
    manager = pluggy.PluginManager(hookspecs.hookspec.project_name)
    manager.add_hookspecs(hookspecs)
    catalogue = Catalogue()
    for plugin, load in _discover():
        _load_plugin(manager, catalogue, plugin, load)
    for hook, kind in HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            _register_components(implementation, catalogue, kind)
    return catalogue


def _discover() -> Iterator[tuple[Plugin, Callable[[], ModuleType]]]:
    """Yield every plugin, built-in plugins first, with the function that imports its module."""
    version = metadata.version("joinery")
    for module_name in BUILT_INS:
        yield Plugin(module_name, "joinery", version), partial(import_module, module_name)
    entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    for entry in sorted(entry_points, key=lambda entry: (entry.name, entry.value)):
        if entry.dist:
            yield Plugin(entry.name, entry.dist.name, entry.dist.version), entry.load
        else:
            yield Plugin(entry.name, "unknown", "unknown"), entry.load


def _load_plugin(
    manager: pluggy.PluginManager,
    catalogue: Catalogue,
    plugin: Plugin,
    load: Callable[[], ModuleType],
) -> None:
    """Import a plugin's module and register its hooks; if either fails, note why."""
    if other := catalogue.plugins.get(plugin.name):
        raise PluginError(f"two plugins have the same name: {other} and {plugin}: uninstall one")
    catalogue.plugins[plugin.name] = plugin
    try:
        module = load()
        manager.register(module, name=plugin.name)
        if not any(caller.has_spec() for caller in manager.get_hookcallers(module) or []):
            raise TypeError(
                f"it registers nothing: it has no @hookimpl function called {', '.join(HOOKS)}"
            )
        _raise_if_wrapper(manager, module)
    # Another author's module may fail in any way. A recipe that does not use it must still work.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        catalogue.note_failure(plugin, error)


def _raise_if_wrapper(manager: pluggy.PluginManager, module: ModuleType) -> None:
    """Raise TypeError if a hook is a pluggy wrapper.

    A pluggy wrapper runs around the hooks of other plugins, but Joinery calls each hook separately.
    """
    for caller in manager.get_hookcallers(module) or []:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is module and (
                implementation.wrapper or implementation.hookwrapper
            ):
                manager.unregister(module)
                raise TypeError(f"{caller.name} is a wrapper; write @hookimpl without arguments")


def _register_components(implementation: Any, catalogue: Catalogue, kind: ComponentKind) -> None:
    """Call a plugin's hook; it receives a function that adds components to the catalogue."""
    plugin = catalogue.plugins[implementation.plugin_name]

    def register(name: str, config: type, build: Build) -> None:
        catalogue[kind].add(Component(kind, name, config, build, plugin))

    try:
        implementation.function(register)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 (as in _load_plugin)
        catalogue.note_failure(plugin, error)
