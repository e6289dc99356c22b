from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Lt

from core.registry.components import (
    Component,
    Plugin,
    Registry,
    call_build,
    missing_arguments,
    parameters_of,
)


@dataclass(frozen=True)
class Config:
    """Something."""

    size: Annotated[int, Gt(0)]
    """how large, in pixels."""
    rate: Annotated[float, Ge(0), Lt(1)] = 0.5
    """a share."""
    norm: Literal["rms", "layer"] = "rms"
    """which one."""
    weights: Path | None = None
    mlp: tuple[int, ...] = (1, 2)


def component(name: str = "resnet", config: type = Config, plugin: str = "mine") -> Component:
    return Component(
        "backbone", name, config, lambda config: config, Plugin(plugin, "extras", "1.0")
    )


def test_a_component_is_found_by_its_name():
    registry = Registry("backbone")
    registry.add(component())
    assert registry.get("resnet") == next(iter(registry))
    assert registry.get("vit") is None


def test_a_name_that_two_components_have_belongs_to_neither():
    registry = Registry("backbone")
    for plugin in ("first", "second", "third"):
        registry.add(component(plugin=plugin))
        registry.add(component(plugin, plugin=plugin))
    assert registry.get("resnet") is None
    assert [c.name for c in registry] == ["first", "second", "third"]
    assert registry.explain_contested("resnet") == (
        "backbone 'resnet': plugin 'first' (extras 1.0) and plugin 'second' (extras 1.0) and "
        "plugin 'third' (extras 1.0) have it; uninstall one, or rename its component"
    )


@dataclass(frozen=True)
class Opaque:
    """A config with types of which there is no JSON."""

    size: int = 1
    dtype: torch.dtype = torch.float32
    scale: Callable[[float], float] = abs


@dataclass(frozen=True)
class Unresolved:
    size: "Nowhere" = 1  # noqa: F821


@dataclass
class Thawed:
    size: int = 1


@dataclass(frozen=True)
class Greedy:
    learning_rate: float = 1.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (component(config=Thawed), "frozen dataclass"),
        (component(config=dict), "frozen dataclass"),
        (component(config=Greedy), "learning_rate"),
        (component(config=Opaque), "a recipe cannot hold dtype: dtype, scale: Callable; declare"),
        (component(config=Unresolved), "types of its config cannot be read: name 'Nowhere'"),
        (component(name="Res-Net"), "lower-case"),
        (
            Component("backbone", "net", Config, None, Plugin("mine", "extras", "1.0")),
            "not callable",
        ),  # type: ignore[arg-type]
    ],
)
def test_a_registration_that_breaks_the_contract_says_what_is_right(bad, message):
    with pytest.raises(TypeError, match=f"^backbone '{bad.name}': .*{message}"):
        Registry("backbone").add(bad)


def test_parameters_tell_type_default_and_meaning():
    size, rate, norm, weights, mlp = parameters_of(Config)
    assert (size.type, size.meaning) == ("int > 0", "how large, in pixels.")
    assert (rate.type, rate.default) == ("float >= 0 < 1", 0.5)
    assert norm.type == "'rms' | 'layer'"
    assert (weights.type, weights.default, weights.meaning) == ("path | unset", None, "")
    assert mlp.type == "tuple[int, ...]"


def test_a_build_gets_only_the_arguments_that_it_names():
    def build(config, *, width, depth=2):
        return config, width, depth

    assert call_build(build, "config", {"width": 3, "cameras": {}}) == ("config", 3, 2)
    assert call_build(lambda config, **offered: offered, "config", {"width": 3}) == {"width": 3}


def test_a_required_argument_that_is_not_offered_is_named():
    def build(config, width, *, spec, depth=2, **others):
        return config

    assert missing_arguments(build, {"width": 3}) == ["spec"]
    assert missing_arguments(build, ["width", "spec"]) == []


def test_the_meaning_of_an_inherited_key_comes_from_its_base():
    @dataclass(frozen=True)
    class Derived(Config):
        """Something else."""

        extra: int = 3
        """one more."""

    meanings = {parameter.name: parameter.meaning for parameter in parameters_of(Derived)}
    assert (meanings["rate"], meanings["extra"]) == ("a share.", "one more.")


def test_a_class_without_a_source_file_has_parameters_without_meanings() -> None:
    """As one that is typed into an interpreter, or whose module was loaded by hand."""
    namespace: dict[str, type] = {}
    code = "@dataclass(frozen=True)\nclass Config:\n    size: int = 3\n"
    exec(code, {"__name__": "nowhere", "dataclass": dataclass}, namespace)
    (size,) = parameters_of(namespace["Config"])
    assert (size.name, size.type, size.default, size.meaning) == ("size", "int", 3, "")


def test_a_class_within_a_function_whose_docstring_starts_at_the_margin_has_parameters() -> None:
    """Its source alone does not parse."""

    @dataclass(frozen=True)
    class Config:
        size: int = 3
        """first line
at the margin"""

    (size,) = parameters_of(Config)
    assert size.name == "size"
