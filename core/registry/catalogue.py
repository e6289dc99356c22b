"""Finds plugins and collects their components.

Built-in and installed plugins are treated in the same way: one pluggy manager registers them all.
`joinery plugins` lists every plugin with its origin, its version, its components, and the
configuration of each component.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module, metadata
from inspect import getmembers_static, isfunction, signature
from types import ModuleType
from typing import Any

import pluggy

from core.errors import did_you_mean
from core.registry import hookspecs
from core.registry.components import KINDS, Component, Plugin, Registry
from core.registry.global_state import undoing_changes
from core.registry.hookspecs import Build, ComponentKind
from core.system.tracebacks import error_in_one_line, place_of, show_traceback

ENTRY_POINT_GROUP = "joinery"
BUILT_INS = (
    "plugins.vision.timm_vit",
    "plugins.vision.film_cnn",
    "plugins.vision.resnet_keypoints",
    "plugins.text.sentencepiece",
    "plugins.text.none",
    "plugins.backbones.transformer",
    "plugins.backbones.identity",
    "plugins.vlms.huggingface",
    "plugins.vlms.kosmos2",
    "plugins.policies.act",
    "plugins.policies.octo",
    "plugins.policies.vqbet",
    "plugins.action_tokens.learned",
    "plugins.heads.mlp",
    "plugins.heads.lstm",
    "plugins.heads.gpt",
    "plugins.heads.discrete",
    "plugins.heads.gmm",
    "plugins.heads.tokens",
    "plugins.heads.denoising",
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
    "plugins.environments.gymnasium",
    "plugins.environments.robosuite",
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
    """What the installed plugins offer, and what is wrong with some of them.

    registries: {kind: registry of the components of that kind}.
    failures: {plugin: what is wrong with it}; the plugin may offer some components nevertheless.
    """

    registries: Mapping[ComponentKind, Registry] = field(
        default_factory=lambda: {kind: Registry(kind) for kind in KINDS}
    )
    failures: dict[Plugin, list[str]] = field(default_factory=dict)

    def __getitem__(self, kind: ComponentKind) -> Registry:
        return self.registries[kind]

    def note_failure(self, plugin: Plugin, failure: BaseException | str) -> None:
        """Note what is wrong with a plugin, for `joinery plugins` and for `explain_unknown`."""
        if isinstance(failure, BaseException):
            show_traceback(failure)
            failure = error_in_one_line(failure, plugin.package)
        self.failures.setdefault(plugin, []).append(failure)

    def failure_lines(self) -> list[str]:
        """Say what is wrong with plugins, one line each, and which names are taken twice."""
        lines = [f"{plugin}: {'; '.join(reasons)}" for plugin, reasons in self.failures.items()]
        for registry in self.registries.values():
            lines += [registry.explain_contested(name) for name in registry.contested]
        return lines

    def explain_unknown(self, kind: ComponentKind, name: object) -> str:
        """Say which components exist, and which failed plugins may offer the missing component."""
        known = [component.name for component in self[kind]]
        if not isinstance(name, str):
            return f"expected the name of a {kind}{did_you_mean('', known)}"
        if name in self[kind].contested:
            return self[kind].explain_contested(name)
        failures = "".join(
            f"; plugin {plugin} failed: {'; '.join(reasons)}"
            for plugin, reasons in self.failures.items()
        )
        return f"no {kind} is called '{name}'{did_you_mean(name, known)}{failures}"

    def components(self) -> Iterator[Component]:
        """Yield the components of all kinds."""
        for registry in self.registries.values():
            yield from registry


@cache
def load_plugins() -> Catalogue:
    """Import every plugin and collect its components.

    What is wrong with a plugin is noted, and the others are still loaded. What plugins print is
    printed as errors are, so that it does not get into the output of a command.
    """
    manager = pluggy.PluginManager(hookspecs.hookspec.project_name)
    manager.add_hookspecs(hookspecs)
    catalogue = Catalogue()
    with redirect_stdout(sys.stderr):
        for plugin, load in _discover():
            with undoing_changes(partial(catalogue.note_failure, plugin)):
                _load_plugin(manager, catalogue, plugin, load)
    return catalogue


def _discover() -> Iterator[tuple[Plugin, Callable[[], ModuleType]]]:
    """Yield every plugin, built-in plugins first, with the function that imports its module."""
    version = metadata.version("joinery")
    for module in BUILT_INS:
        yield Plugin(module, "joinery", version, module), partial(import_module, module)
    entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    for entry in sorted(entry_points, key=lambda entry: (entry.name, entry.value)):
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown",) * 2
        module = entry.value.partition(":")[0].strip()
        yield Plugin(entry.name, name, version, module), entry.load


def _load_plugin(
    manager: pluggy.PluginManager,
    catalogue: Catalogue,
    plugin: Plugin,
    load: Callable[[], ModuleType],
) -> None:
    """Import a plugin's module, and call its hooks; if anything fails, note why."""
    try:
        module = load()
        for mistake in _misnamed_hooks(module):
            catalogue.note_failure(plugin, mistake)
        _raise_if_not_callable(module)
        # not only the plugin's name, because another package may have a plugin of that name
        manager.register(module, name=f"{plugin.distribution}:{plugin.name}")
    except KeyboardInterrupt:
        raise
    # Another author's module may fail in any way, also by leaving the program, or by an exception
    # that is derived from BaseException. A recipe that does not use it must still work.
    except BaseException as error:  # noqa: BLE001
        catalogue.note_failure(plugin, error)
        return
    implementations = [
        (kind, implementation)
        for hook, kind in HOOKS.items()
        for implementation in getattr(manager.hook, hook).get_hookimpls()
        if implementation.plugin is module
    ]
    if not implementations and plugin not in catalogue.failures:
        hooks = ", ".join(HOOKS)
        catalogue.note_failure(
            plugin, f"it registers nothing: it has no @hookimpl function called {hooks}"
        )
    for kind, implementation in implementations:
        _register_components(implementation, catalogue, kind, plugin)


def _misnamed_hooks(module: ModuleType) -> Iterator[str]:
    """Yield a line for each function that is marked as a hook and is none, or the other way round.

    pluggy ignores such functions, so that the components they register would be missing silently.
    """
    functions = getmembers_static(module, isfunction)
    hooks = [name for name, function in functions if name in HOOKS and _mark(function)]
    for name, function in functions:
        if name in HOOKS and not _mark(function):
            yield f"{name} is not marked as a hook: write @hookimpl above it{place_of(function)}"
        elif name not in HOOKS and (_mark(function) or (not hooks and name.startswith("register"))):
            yield f"{name} is no hook{place_of(function)}{did_you_mean(name, list(HOOKS))}"


def _raise_if_not_callable(module: ModuleType) -> None:
    """Raise TypeError if a hook cannot be called with `register` alone, or is a pluggy wrapper.

    A pluggy wrapper runs around the hooks of other plugins, but Joinery calls each hook separately.
    """
    for name, function in getmembers_static(module, isfunction):
        if name not in HOOKS or not (mark := _mark(function)):
            continue
        if mark["wrapper"] or mark["hookwrapper"]:
            raise TypeError(
                f"{name} is a wrapper: write @hookimpl without arguments{place_of(function)}"
            )
        if (arguments := list(signature(function).parameters)) != ["register"]:
            raise TypeError(
                f"{name}({', '.join(arguments)}) must be {name}(register){place_of(function)}"
            )


def _mark(function: Callable[..., Any]) -> dict[str, Any] | None:
    """Return what @hookimpl has noted on a function; None if the function is not marked."""
    mark: dict[str, Any] | None = getattr(function, "joinery_impl", None)
    return mark


def _register_components(
    implementation: Any, catalogue: Catalogue, kind: ComponentKind, plugin: Plugin
) -> None:
    """Call a plugin's hook; it receives a function that adds components to the catalogue."""

    def register(name: str, config: type, build: Build) -> None:
        catalogue[kind].add(Component(kind, name, config, build, plugin))

    try:
        implementation.function(register)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (as in _load_plugin)
        catalogue.note_failure(plugin, error)
