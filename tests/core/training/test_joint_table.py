import pytest
import torch

from core.loading.opening import open_data
from core.policy.assembly import build_policy
from core.training.joint_table import JointTable
from core.training.optimizer import build_optimizer, modules_of
from tests.contexts import noise


@pytest.fixture
def measured(load):
    """A policy, its optimiser, and the table of one step; the text encoder is frozen."""
    recipe = load(
        "text_encoder.train=false", "text_encoder.pretrained=false", "train.weight_decay=0"
    )
    torch.manual_seed(0)
    data = open_data(recipe)
    policy = build_policy(recipe, data.image_shapes, data.action_spec, data.proprio_dim)
    optimizer = build_optimizer(policy, recipe)
    training, _ = data.loaders(policy.text_encoder.tokenize, 4, torch.device("cpu"))
    policy(next(training.batches(0)), noise()).losses["total"].backward()
    before = {
        name: [p.detach().clone().double() for p in m.parameters()]
        for name, m in modules_of(policy).items()
    }
    table = JointTable(policy, optimizer)
    with table.measure(1):
        optimizer.step()
    return policy, table, before


def test_the_rows_equal_a_computation_in_float64(measured):
    policy, table, before = measured
    for row in table.rows:
        if row.part == "text_encoder":
            continue
        parameters = list(modules_of(policy)[row.part].parameters())
        moved = sum(
            ((p.detach().double() - old) ** 2).sum()
            for p, old in zip(parameters, before[row.part], strict=True)
        )
        size = sum((old**2).sum() for old in before[row.part])
        gradient = sum((p.grad.double() ** 2).sum() for p in parameters)
        assert row.update == pytest.approx(float((moved / size) ** 0.5), rel=1e-4)
        assert row.gradient_norm == pytest.approx(float(gradient**0.5), rel=1e-4)
        assert row.update > 0


def test_a_frozen_part_is_shown_as_frozen(measured):
    _, table, _ = measured
    row = next(row for row in table.rows if row.part == "text_encoder")
    assert (row.trainable, row.learning_rate, row.gradient_norm, row.update) == (0, 0.0, 0.0, 0.0)
    assert row.parameters > 0
