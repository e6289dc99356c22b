import pytest
import torch

from core.loading.training_data import open_data
from core.policy.assembly import build_policy
from core.training.optimizer import build_optimizer, modules_of, set_learning_rate


def policy_of(recipe):
    data = open_data(recipe)
    return build_policy(recipe, data.image_shapes, data.action_spec, data.proprio_dim)


def test_every_trainable_parameter_is_optimised_once(load):
    recipe = load("text_encoder.train=false")
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
