"""One optimiser for all parts: its groups, what it is built of, and runs with each of them."""

import shutil
from dataclasses import replace

import pytest
import torch

from core.errors import ConfigError
from core.loading.opening import open_data
from core.policy.assembly import build_policy
from core.registry.components import Component, Plugin
from core.training.optimizer import (
    build_optimizer,
    modules_of,
    parameter_groups,
    set_learning_rate,
)
from core.weights.checkpoint import checkpoints
from tests import lion
from tests.core.training.runs import metrics, needs_muon, train


def policy_of(recipe):
    data = open_data(recipe)
    return build_policy(recipe, data.image_shapes, data.action_spec, data.proprio_dim)


def test_every_trainable_parameter_is_optimised_once(load):
    recipe = load("text_encoder.train=false", "text_encoder.pretrained=false")
    policy = policy_of(recipe)
    optimized = [
        p for group in build_optimizer(policy, recipe).param_groups for p in group["params"]
    ]
    assert len(optimized) == len({id(p) for p in optimized})
    assert {id(p) for p in optimized} == {id(p) for p in policy.parameters() if p.requires_grad}
    assert not any(p.requires_grad for p in policy.text_encoder.parameters())


def test_parts_have_their_own_rates(load):
    recipe = load(
        "vision_encoder.learning_rate=1e-5", "backbone.weight_decay=0.5", "train.learning_rate=1e-3"
    )
    groups = build_optimizer(policy_of(recipe), recipe).param_groups
    rates = {group["part"]: group["lr"] for group in groups}
    assert rates["vision_encoder"] == 1e-5
    assert {rate for part, rate in rates.items() if part != "vision_encoder"} == {1e-3}
    decays = {(g["part"], p.ndim > 1): g["weight_decay"] for g in groups for p in g["params"]}
    assert decays["backbone", True] == 0.5
    assert decays["policy_head", True] == 0.01
    assert {decay for (_, is_matrix), decay in decays.items() if not is_matrix} == {0.0}


def test_modules_are_the_five_parts_and_the_projections(load):
    policy = policy_of(load())
    counted = sum(p.numel() for module in modules_of(policy).values() for p in module.parameters())
    assert counted == sum(p.numel() for p in policy.parameters())


def test_the_rate_is_a_function_of_the_step(load):
    recipe = load("train.learning_rate=0.5")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    optimizer.param_groups[0]["full_lr"] = 0.5
    for step in (3, 0, 3):
        set_learning_rate(optimizer, step, recipe.train)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 0.8535534)


def test_groups_keep_the_order_that_the_norm_of_the_gradient_had(load):
    """Version 0.1 had two groups for each part: first matrices, then vectors."""
    recipe = load()
    policy = policy_of(recipe)
    expected = []
    for module in modules_of(policy).values():
        expected += [p for p in module.parameters() if p.ndim > 1]
        expected += [p for p in module.parameters() if p.ndim <= 1]
    groups = parameter_groups(policy, recipe)
    assert [id(p) for group in groups for p in group["params"]] == list(map(id, expected))


def test_groups_tell_the_role(load):
    recipe = load()
    policy = policy_of(recipe)
    roles = {
        p: group["role"] for group in parameter_groups(policy, recipe) for p in group["params"]
    }
    assert roles[policy.text_encoder.embedding.weight] == "embedding"
    assert roles[policy.action_tokens.action] == "embedding"
    assert roles[policy.policy_head.lstm.weight_ih_l0] == "matrix"
    assert roles[policy.policy_head.lstm.bias_ih_l0] == "vector"


def test_a_recipe_without_the_section_has_adamw_with_the_numbers_of_train(load):
    recipe = load("train.betas=[0.8, 0.9]", "train.learning_rate=0.002")
    optimizer = build_optimizer(policy_of(recipe), recipe)
    assert type(optimizer) is torch.optim.AdamW
    group = optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["lr"]) == ((0.8, 0.9), 1e-8, 0.002)


def test_betas_that_no_one_uses_are_refused(load):
    with pytest.raises(ConfigError, match=r"train.betas: the optimizer 'sgd' has no betas"):
        load("optimizer.name=sgd", "train.betas=[0.8, 0.9]")


@pytest.mark.parametrize("name", [pytest.param("muon", marks=needs_muon), "sgd"])
def test_resuming_continues_bit_for_bit(recipe_file, tmp_path, name):
    settings = [f"optimizer.name={name}", "train.learning_rate=0.01"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(recipe_file, whole, *settings) == 0
    assert train(recipe_file, halves, *settings) == 0
    for checkpoint in checkpoints(halves)[1:]:
        shutil.rmtree(checkpoint.folder)
    assert train(recipe_file, halves, *settings, resume=True) == 0
    assert metrics(halves) == metrics(whole)
    last = [checkpoints(folder)[-1].folder for folder in (whole, halves)]
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (last[0] / file).read_bytes() == (last[1] / file).read_bytes()


def test_another_optimizer_is_another_run(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run", "train.steps=1") == 0
    changed = ("train.steps=1", "optimizer.name=sgd")
    assert train(recipe_file, tmp_path / "run", *changed, resume=True) == 2
    assert "optimizer.name: the run in" in capsys.readouterr().err


def test_a_run_of_before_there_were_optimizers_goes_on(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    recipe = tmp_path / "run" / "recipe.toml"
    before, section, after = recipe.read_text().partition("[optimizer]\n")
    assert section
    recipe.write_text(before.replace("ema = 0.0\n", "") + after[after.index("[") :])
    assert train(recipe_file, tmp_path / "run", resume=True) == 0


# --------------------------------------------------------------------------- a third party's plugin


def test_a_third_party_adds_an_optimizer_that_trains_and_resumes(
    recipe_file, tmp_path, monkeypatch, capsys
):
    lion.install(monkeypatch)
    settings = ["optimizer.name=lion", "optimizer.blend=0.8", "train.steps=4"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(recipe_file, whole, *settings) == 0
    assert train(recipe_file, halves, *settings) == 0
    shutil.rmtree(checkpoints(halves)[-1].folder)
    assert train(recipe_file, halves, *settings, resume=True) == 0
    assert metrics(halves) == metrics(whole)
    assert metrics(whole)[4]["joint/backbone/update"] > 0


def build_nothing(config, *, groups):
    return "no optimiser"


def build_half(config, *, groups):
    return torch.optim.SGD(groups[:1])


def build_bare(config, *, groups):
    return torch.optim.SGD([p for group in groups for p in group["params"]], lr=0.1)


def build_of_another_edition(config, *, parameters):
    return torch.optim.SGD(parameters)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (build_nothing, "it built a str, which is no torch.optim.Optimizer"),
        (build_half, "it does not hold each parameter once"),
        (build_bare, "its groups lack the keys"),
        (build_of_another_edition, "its build asks for parameters, and Joinery offers groups"),
    ],
)
def test_an_optimizer_that_breaks_the_contract_is_one_line(load, build, message):
    recipe = load()
    component = Component("optimizer", "odd", lion.LionConfig, build, Plugin("odd", "extras", "1"))
    odd = replace(recipe, optimizer=replace(recipe.optimizer, component=component))
    with pytest.raises(ConfigError, match=f"optimizer.name: 'odd' of plugin 'odd'.*{message}"):
        build_optimizer(policy_of(odd), odd)
