"""The eleven hooks that a plugin can have.

Each hook receives `register(name, config, build)` and calls `register` once per component.
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
    "optimizer",
    "dataset",
    "exporter",
    "environment",
    "logger",
    "callback",
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
"""Decorator that marks a function of a plugin as a hook."""


@hookspec
def register_vision_encoders(register: Register) -> None:
    """Register vision encoders, which turn the images of each frame into tokens."""


@hookspec
def register_text_encoders(register: Register) -> None:
    """Register text encoders, which turn instructions into tokens."""


@hookspec
def register_backbones(register: Register) -> None:
    """Register backbones, the networks that mix vision, text and action tokens."""


@hookspec
def register_action_tokens(register: Register) -> None:
    """Register strategies that place all tokens in a sequence, and say where actions are read."""


@hookspec
def register_policy_heads(register: Register) -> None:
    """Register policy heads, which turn the readout into actions, and compute the loss."""


@hookspec
def register_optimizers(register: Register) -> None:
    """Register optimisers, which change the weights of all parts in each training step."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register readers of episodes in other formats, for `joinery import`."""


@hookspec
def register_exporters(register: Register) -> None:
    """Register exporters, which write episodes in other formats, for `joinery write`."""


@hookspec
def register_environments(register: Register) -> None:
    """Register environments, in which a policy acts."""


@hookspec
def register_loggers(register: Register) -> None:
    """Register loggers, which get the figures of a training."""


@hookspec
def register_callbacks(register: Register) -> None:
    """Register callbacks, which are called at fixed moments of a training."""
