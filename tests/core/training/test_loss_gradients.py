"""The gradient of each loss in each part."""

import pytest
import torch
from lightning_fabric import Fabric

from core.contracts.generator import Generator
from core.training.loss_gradients import StepInputs, loss_gradients
from core.training.optimizer import modules_of
from tests.core.policy.test_auxiliary import LSTM, REGRESSION, batch_of, build

CPU = torch.device("cpu")


def measured(policy, *terms):
    fabric = Fabric(accelerator="cpu", devices=1)
    return loss_gradients(fabric, policy, StepInputs(batch_of(policy), (0,), None, (), terms))


@pytest.fixture
def policy(tmp_path):
    return build(tmp_path, LSTM, more=REGRESSION)


def test_each_norm_is_that_of_the_loss_alone(policy):
    terms = ("pose", "gripper", "auxiliary/regression/action")
    norms = measured(policy, *terms)
    for term in terms:
        losses = policy(batch_of(policy), Generator.shared((0,), CPU)).losses
        policy.zero_grad()
        losses[term].backward()
        for part, module in modules_of(policy).items():
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            expected = sum(float((g.double() ** 2).sum()) for g in gradients) ** 0.5
            assert norms.get(part, {}).get(term, 0.0) == pytest.approx(expected, rel=1e-5), part


def test_an_insulated_loss_teaches_its_head_alone(tmp_path):
    policy = build(tmp_path, LSTM, more=f"{REGRESSION}\ninsulate = true")
    norms = measured(policy, "pose", "auxiliary/regression/action")
    taught = {part for part, by_term in norms.items() if by_term["auxiliary/regression/action"] > 0}
    assert taught == {"auxiliary/regression"}
    assert norms["backbone"]["pose"] > 0


def test_a_single_loss_is_not_measured(policy):
    assert measured(policy, "pose") == {}


def test_measuring_changes_nothing(policy):
    policy.register_buffer("calls", torch.zeros(()))
    count = policy.calls.add_
    policy.vision_encoder.register_forward_pre_hook(lambda *_: count(1) and None)
    policy.train()
    weights = {name: x.clone() for name, x in policy.state_dict().items()}
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    random_numbers = torch.get_rng_state()

    assert measured(policy, "pose", "gripper")

    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert all(torch.equal(x, weights[name]) for name, x in policy.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in policy.parameters())
