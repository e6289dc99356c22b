"""The only door by which plugins come in: built-in and pip-installed ones alike, through one pluggy
manager.

`joinery plugins` lists every plugin with its origin, version, components and
their configuration.
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
    "plugins.datasets.metaworld_npz",
    "plugins.datasets.lerobot",
    "plugins.datasets.robomimic",
    "plugins.datasets.diffusion_policy",
    "plugins.datasets.rlds",
    "plugins.datasets.npz",
    "plugins.environments.tabletop",
    "plugins.environments.metaworld",
    "plugins.environments.calvin",
)
HOOKS: Mapping[str, ComponentKind] = {
    "register_vision_encoders": "vision_encoder",
    "register_text_encoders": "text_encoder",
    "register_backbones": "backbone",
    "register_action_tokens": "action_tokens",
    "register_policy_heads": "policy_head",
    "register_datasets": "dataset",
    "register_exporters": "exporter",
    "register_environments": "environment",
}


@dataclass(frozen=True)
class Catalogue:
    """Everything the installed plugins offer, and which of them failed, with the reason."""

    registries: Mapping[ComponentKind, Registry] = field(
        default_factory=lambda: {kind: Registry(kind) for kind in KINDS}
    )
    plugins: dict[str, Plugin] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, kind: ComponentKind) -> Registry:
        return self.registries[kind]

    def note_failure(self, plugin: Plugin, error: BaseException) -> None:
        """Remember why a plugin is of no use; the recipes that need it will say so."""
        self.failures[plugin.name] = (
            f"{plugin.distribution} {plugin.version}: {type(error).__name__}: {error}"
        )

    def explain_unknown(self, kind: ComponentKind, name: object) -> str:
        """Say what there is instead of an unknown component, and which plugins might have had it
        but failed.
        """
        known = [component.name for component in self[kind]]
        if not isinstance(name, str):
            return f"expected the name of a {kind}{did_you_mean('', known)}"
        failures = "".join(
            f"; plugin '{plugin}' failed: {why}" for plugin, why in self.failures.items()
        )
        return f"no {kind} is called '{name}'{did_you_mean(name, known)}{failures}"


@cache
def load_plugins() -> Catalogue:
    """Import every plugin and collect its components. A plugin that fails is noted, and the others
    go on.

    Raises PluginError when two plugins, or two components of one kind, claim one name.
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


def _discover() -> Iterator[tuple[Plugin, Callable[[], ModuleType]]]:
    ours = metadata.version("joinery")
    for dotted_name in BUILT_INS:
        yield Plugin(dotted_name, "joinery", ours), partial(import_module, dotted_name)
    for entry in sorted(
        metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value)
    ):
        name, version = (
            (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "unknown")
        )
        yield Plugin(entry.name, name, version), entry.load


def _admit(
    manager: pluggy.PluginManager,
    catalogue: Catalogue,
    plugin: Plugin,
    load: Callable[[], ModuleType],
) -> None:
    if other := catalogue.plugins.get(plugin.name):
        raise PluginError(f"two plugins have one name: {other} and {plugin}: uninstall one")
    catalogue.plugins[plugin.name] = plugin
    try:
        module = load()
        manager.register(module, name=plugin.name)
        if not any(caller.has_spec() for caller in manager.get_hookcallers(module) or []):
            raise TypeError(
                f"it registers nothing: it has no @hookimpl function called {', '.join(HOOKS)}"
            )
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may fail in any way, and only its own users suffer
        catalogue.note_failure(plugin, error)


def _call(implementation: Any, catalogue: Catalogue, kind: ComponentKind) -> None:
    plugin = catalogue.plugins[implementation.plugin_name]

    def register(name: str, config: type, build: Build) -> None:
        catalogue[kind].add(Component(kind, name, config, build, plugin))

    try:
        implementation.function(register)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see _admit
        catalogue.note_failure(plugin, error)
