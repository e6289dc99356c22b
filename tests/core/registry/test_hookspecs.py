"""Every kind of component has one hook, and every hook one kind."""

import inspect

import pluggy

from core.registry import hookspecs
from core.registry.catalogue import HOOKS
from core.registry.components import KINDS


def test_every_kind_of_component_has_one_hook():
    manager = pluggy.PluginManager(hookspecs.hookspec.project_name)
    manager.add_hookspecs(hookspecs)
    specified = {caller.name for caller in manager.hook.__dict__.values() if caller.has_spec()}
    assert specified == HOOKS.keys()
    assert sorted(HOOKS.values()) == sorted(KINDS)


def test_every_hook_takes_register_alone_and_says_what_it_is_for():
    for name in HOOKS:
        hook = getattr(hookspecs, name)
        assert list(inspect.signature(hook).parameters) == ["register"]
        assert hook.__doc__.startswith("Register ")
