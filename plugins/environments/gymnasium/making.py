"""Makes an environment of Gymnasium and its expert, and says in one line what is missing."""

import os
import re
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

import numpy as np

from core import DataError, did_you_mean
from plugins.environments.gymnasium.config import GymnasiumConfig

Expert = Callable[[], np.ndarray]
"""Returns an action (A) as the environment takes it, which depends on the present state alone."""

EXTRAS = {"gymnasium": "gymnasium", "gym_pusht": "pusht", "gym_aloha": "aloha"}
WORLDS = __name__.rpartition(".")[0]
EXPERTS = {
    "gym_pusht/PushT-v0": f"{WORLDS}.pusht:PushTExpert",
    "gym_aloha/AlohaTransferCube-v0": f"{WORLDS}.aloha:TransferCubeExpert",
    "gym_aloha/AlohaInsertion-v0": f"{WORLDS}.aloha:InsertionExpert",
}


def make(config: GymnasiumConfig) -> Any:
    """Return the environment that a recipe names, inside its wrappers.

    Raises DataError if a library is missing, the id is unknown, or an option or wrapper is wrong.
    """
    _set_up_libraries()
    gymnasium = _import("gymnasium", "id")
    if config.module:
        _import(config.module, "module")
    if config.id.rpartition(":")[2] not in gymnasium.registry and ":" not in config.id:
        raise DataError(_unknown(config, list(gymnasium.registry)))
    options = {"render_mode": "rgb_array", "disable_env_checker": True, **config.options}
    if config.max_steps is not None:
        options["max_episode_steps"] = config.max_steps
    try:
        environment = gymnasium.make(config.id, **options)
    except Exception as error:
        raise DataError(
            f"environment.options: gymnasium.make('{config.id}') raised {type(error).__name__}: "
            f"{_line(error)}; correct the options, or install what it needs"
        ) from error
    for number, name in enumerate(config.wrappers):
        environment = load(name, f"wrappers[{number}]")(environment)
    return environment


def make_expert(config: GymnasiumConfig, environment: Any) -> Expert | None:
    """Return the expert that the recipe names, or the one that Joinery has for the id."""
    name = config.expert or EXPERTS.get(config.id.rpartition(":")[2], "none")
    if name == "none":
        return None
    expert: Expert = load(name, "expert")(environment)
    return expert


def load(name: str, key: str) -> Any:
    """Return what "MODULE:NAME" stands for; DataError, with the recipe's key, if it is missing."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise DataError(f"environment.{key}: '{name}' has no colon; write \"MODULE:NAME\"")
    found = _import(module, key)
    if not hasattr(found, attribute):
        known = did_you_mean(attribute, [word for word in vars(found) if not word.startswith("_")])
        raise DataError(f"environment.{key}: {module} has no '{attribute}'{known}")
    return getattr(found, attribute)


def versions_of(environment: Any) -> dict[str, str]:
    """Return {package: version} of Gymnasium, of the world, and of what the world requires."""
    module = type(environment.unwrapped).__module__.partition(".")[0]
    worlds = metadata.packages_distributions().get(module, [])
    required = [re.split(r"[\s<>=!~;\[(]", line)[0] for w in worlds for line in _requires(w)]
    found = {}
    for package in ("gymnasium", *worlds, *required):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _requires(package: str) -> list[str]:
    return [line for line in metadata.requires(package) or () if "extra ==" not in line]


def _set_up_libraries() -> None:
    """Set what simulators read when they are imported, unless the user has set it."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets where results are printed
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa: one process per core draws already
    if sys.platform.startswith("linux") and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def _import(module: str, key: str) -> Any:
    """Import a module that the recipe's `key` needs; DataError says which package to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        extra = EXTRAS.get(package)
        advice = f"pip install 'joinery[{extra}]'" if extra else "install it, or correct the name"
        raise DataError(
            f"environment.{key}: {module} cannot be imported ({_line(error)}); {advice}"
        ) from None


def _unknown(config: GymnasiumConfig, known: list[str]) -> str:
    """Say that an id is not registered, and by which module it may be."""
    what = f"environment.id: gymnasium has no '{config.id}'"
    namespace = config.id.rpartition("/")[0]
    if namespace and not config.module:
        return f'{what}; set environment.module to the module that registers it: "{namespace}"?'
    same = [name for name in known if namespace and name.startswith(f"{namespace}/")]
    suggestion = did_you_mean(config.id, same or known)
    return what + (suggestion or "; gymnasium.pprint_registry() lists what it has")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
