"""The eight hooks of a plugin.

Each hook receives `register(name, config, build)` and calls it once per component.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import pluggy

ComponentKind = Literal[
    "vision_encoder",
    "text_encoder",
    "backbone",
    "action_tokens",
    "policy_head",
    "dataset",
    "exporter",
    "environment",
]
Build = Callable[..., Any]


class Register(Protocol):
    """The function that a hook receives and calls once per component.

    name: name of the component: lower-case letters, digits and underscores.
    config: a frozen dataclass, whose fields are the keys of the component's section in a recipe.
    build: a class or function that makes the component from its config and from the arguments that
        Joinery offers to components of its kind.
    """

    def __call__(self, name: str, config: type, build: Build) -> None:
        """Add one component."""


hookspec = pluggy.HookspecMarker("joinery")
hookimpl = pluggy.HookimplMarker("joinery")
"""Marks a function of a plugin as a hook."""


@hookspec
def register_vision_encoders(register: Register) -> None:
    """Register vision encoders: images to tokens, frame by frame."""


@hookspec
def register_text_encoders(register: Register) -> None:
    """Register text encoders: instructions to tokens."""


@hookspec
def register_backbones(register: Register) -> None:
    """Register backbones: the network that mixes vision, text and action tokens."""


@hookspec
def register_action_tokens(register: Register) -> None:
    """Register action-token strategies: how tokens are laid out, where actions are read."""


@hookspec
def register_policy_heads(register: Register) -> None:
    """Register policy heads: readout to actions, and the loss."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register datasets: readers of episodes in a format of their own, for `joinery import`."""


@hookspec
def register_exporters(register: Register) -> None:
    """Register exporters: writers of episodes in a format of their own, for `joinery write`."""


@hookspec
def register_environments(register: Register) -> None:
    """Register environments, in which a policy acts."""
