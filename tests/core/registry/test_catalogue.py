import re
from dataclasses import dataclass
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from core import hookimpl
from core.commands import plugins as plugins_command
from core.errors import ConfigError
from core.recipe.recipe import load_recipe
from core.recipe.schema import recipe_schema
from core.registry import catalogue as plugins


@dataclass(frozen=True)
class Config:
    """"""

    size: int = 1
    """how large."""


def entry_point(name: str, load, distribution: str = "joinery-extras"):
    dist = SimpleNamespace(name=distribution, version="2.1")
    return SimpleNamespace(name=name, value=name, dist=dist, load=load)


def module_that_registers(name: str):
    @hookimpl
    def register_backbones(register):
        register(name, Config, lambda config: config)

    return SimpleNamespace(register_backbones=register_backbones)


@pytest.fixture
def load_with(monkeypatch):
    """Load the plugins as if these entry points were installed."""

    def load(*entries):
        monkeypatch.setattr(metadata, "entry_points", lambda group: list(entries))
        return plugins.load_plugins.__wrapped__()

    return load


def test_built_ins_come_through_the_same_door():
    catalogue = plugins.load_plugins()
    assert catalogue.failures == {}
    ours = {
        kind: [c for c in catalogue[kind] if c.plugin.name in plugins.BUILT_INS]
        for kind in catalogue.registries
    }
    offered = {kind: [c.name for c in components] for kind, components in ours.items()}
    seen = [
        "act_vision",
        "film_cnn",
        "huggingface",
        "kosmos2_vision",
        "octo_vision",
        "resnet_keypoints",
        "timm_vit",
    ]
    assert offered["vision_encoder"] == seen
    assert offered["text_encoder"] == ["huggingface", "kosmos2_text", "none", "sentencepiece"]
    backbones = ["act", "huggingface", "identity", "kosmos2", "mingpt", "transformer"]
    assert offered["backbone"] == backbones
    assert offered["action_tokens"] == ["act", "learned", "octo", "vqbet"]
    heads = ["act", "bins", "diffusion", "discrete", "expert", "fast", "flow", "gmm", "gpt"]
    heads += ["lstm", "mlp", "vqbet"]
    assert offered["policy_head"] == heads
    assert offered["optimizer"] == ["adamw", "muon", "sgd"]
    files = ["hdf5", "lerobot", "metaworld_npz", "npz", "rlds", "robomimic"]
    assert offered["dataset"] == ["calvin", "diffusion_policy", *files]
    assert offered["exporter"] == ["lerobot", "robomimic"]
    assert offered["environment"] == ["calvin", "gymnasium", "metaworld", "robosuite", "tabletop"]
    assert offered["logger"] == ["csv", "mlflow", "tensorboard", "wandb"]
    assert offered["callback"] == []


def test_every_built_in_key_says_what_it_means():
    catalogue = plugins.load_plugins()
    silent = [
        f"{component.name}.{parameter.name}"
        for registry in catalogue.registries.values()
        for component in registry
        for parameter in component.parameters
        if not parameter.meaning
    ]
    assert silent == []


def test_an_installed_plugin_joins(load_with):
    catalogue = load_with(entry_point("mamba_plugin", lambda: module_that_registers("mamba")))
    component = catalogue["backbone"].get("mamba")
    assert (component.plugin.name, component.plugin.version) == ("mamba_plugin", "2.1")


def test_a_name_taken_twice_breaks_only_recipes_that_use_it(load_with, tmp_path):
    catalogue = load_with(
        entry_point("imposter", lambda: module_that_registers("transformer")),
        entry_point("mamba", lambda: module_that_registers("mamba")),
    )
    recipe = tmp_path / "r.toml"
    for name, message in (
        ("transformer", r"'plugins.backbones.transformer' \(joinery .*'imposter' \(joinery-extras"),
        ("mamba", "vision_encoder.name"),  # of the backbone, nothing
    ):
        recipe.write_text(f'[data]\npath="x"\n[backbone]\nname="{name}"\n')
        with pytest.raises(ConfigError, match=message) as caught:
            load_recipe(recipe, [], catalogue)
        assert ("backbone" in str(caught.value)) == (name == "transformer")
    assert any("'imposter'" in line for line in catalogue.failure_lines())
    recipe_schema(catalogue)


def test_two_packages_may_call_their_plugins_alike(load_with):
    first = entry_point("mamba", lambda: module_that_registers("a"), "one")
    second = entry_point("mamba", lambda: module_that_registers("b"), "two")
    catalogue = load_with(first, second)
    assert [catalogue["backbone"].get(name).plugin.distribution for name in "ab"] == ["one", "two"]


def test_a_plugin_that_fails_to_import_breaks_only_recipes_that_name_it(load_with, tmp_path):
    def fail():
        raise ImportError("libmamba.so.3: cannot open")

    catalogue = load_with(entry_point("mamba_plugin", fail))
    assert catalogue["backbone"].get("transformer") is not None
    recipe = tmp_path / "r.toml"
    recipe.write_text('[data]\npath="x"\n[backbone]\nname="mamba"\n')
    with pytest.raises(
        ConfigError, match=r"backbone.name: .*'mamba'.*mamba_plugin.*libmamba.so.3: cannot open"
    ):
        load_recipe(recipe, [], catalogue)


@hookimpl
def register_backbones(register, surprise):
    """A hook with an argument that the specification does not have."""


def register_policy_head(register):
    """A hook with a misspelled name, and without @hookimpl."""


@hookimpl(wrapper=True)
def register_text_encoders(register):
    """A wrapper of the other plugins' hooks: pluggy would not call it as a hook of its own."""
    yield


@pytest.mark.parametrize(
    "name", ["wrong_signature", "raises", "registers_nonsense", "registers_nothing", "wraps"]
)
def test_a_broken_hook_is_noted_and_the_others_go_on(load_with, name):
    @hookimpl
    def register_policy_heads(register):
        raise KeyError("no such backend")

    broken = {
        "wrong_signature": SimpleNamespace(register_backbones=register_backbones),
        "raises": SimpleNamespace(register_policy_heads=register_policy_heads),
        "registers_nonsense": module_that_registers("No Name"),
        "registers_nothing": SimpleNamespace(register_policy_head=register_policy_head),
        "wraps": SimpleNamespace(register_text_encoders=register_text_encoders),
    }[name]
    catalogue = load_with(
        entry_point(name, lambda: broken), entry_point("zz", lambda: module_that_registers("mamba"))
    )
    assert [plugin.name for plugin in catalogue.failures] == [name]
    assert catalogue["backbone"].get("mamba") is not None


def test_the_listing_names_origin_version_and_keys(capsys):
    assert plugins_command.main(["policy_head"]) == 0
    listing = capsys.readouterr().out
    assert "lstm  [plugins.heads.lstm, joinery 0.1.0]" in listing
    assert "gripper_weight: float" in listing
    assert "plugins.backbones" not in listing


def test_a_misspelt_hook_beside_a_right_one_is_noted_and_the_right_one_counts(load_with):
    @hookimpl
    def register_policy_headz(register):
        raise AssertionError("nobody calls it")

    def register_datasets(register):
        raise AssertionError("nobody calls it")

    module = module_that_registers("mamba")
    module.register_policy_headz = register_policy_headz
    module.register_datasets = register_datasets
    catalogue = load_with(entry_point("mamba_plugin", lambda: module))
    assert catalogue["backbone"].get("mamba") is not None
    ((first, second),) = catalogue.failures.values()
    assert re.fullmatch(r"register_datasets is not marked .*test_catalogue.py:\d+", first)
    assert second.startswith("register_policy_headz is no hook, at ")
    assert second.endswith("; did you mean 'register_policy_heads'?")


def test_what_a_plugin_prints_or_changes_reaches_nobody_else(load_with, capsys):
    def load():
        print("hello")
        torch.set_default_dtype(torch.float64)
        return module_that_registers("mamba")

    catalogue = load_with(entry_point("mamba_plugin", load))
    assert torch.get_default_dtype() == torch.float32
    assert capsys.readouterr() == ("", "hello\n")
    ((change,),) = catalogue.failures.values()
    assert "changed torch's default dtype from torch.float32 to torch.float64" in change


@pytest.mark.parametrize("error", [SystemExit(3), type("Own", (BaseException,), {})("broken")])
def test_a_plugin_that_leaves_the_program_breaks_itself_alone(load_with, error):
    def load():
        raise error

    assert len(load_with(entry_point("mamba_plugin", load)).failures) == 1


def test_ctrl_c_still_interrupts(load_with):
    def load():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_with(entry_point("mamba_plugin", load))
