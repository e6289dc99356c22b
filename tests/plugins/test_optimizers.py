"""The built-in optimisers, compared with PyTorch's own on a toy."""

import copy

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from core.system.strict import from_plain
from plugins.optimizers.adamw import AdamWConfig, build_adamw
from plugins.optimizers.muon import MuonConfig, build_muon
from plugins.optimizers.sgd import SGDConfig, build_sgd
from tests.core.training.runs import needs_muon

BETAS = (0.8, 0.95)


class Toy(nn.Module):
    """A kernel, a matrix, a vector and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.kernel = nn.Conv1d(6, 6, 3, padding=1, bias=False)
        self.layer = nn.Linear(6, 4)

    def forward(self, words):  # (B L) -> (B 4)
        return self.layer(self.kernel(self.words(words).transpose(1, 2)).mean(-1))


def groups_of(model):
    """Groups as core makes them; the matrices and the kernel are in one group."""
    members = {
        "embedding": [model.words.weight],
        "matrix": [model.kernel.weight, model.layer.weight],
        "vector": [model.layer.bias],
    }
    return [
        {
            "part": "toy",
            "role": role,
            "params": parameters,
            "lr": 0.01,
            "full_lr": 0.01,
            "weight_decay": 0.0 if role == "vector" else 0.1,
        }
        for role, parameters in members.items()
    ]


@pytest.fixture
def toys():
    """Two equal models."""
    torch.manual_seed(0)
    model = Toy()
    return model, copy.deepcopy(model)


def step(model, optimizers, number):
    """Take one step on random words and targets, which depend on the step's number alone."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(5, (8, 3), generator=generator)
    targets = torch.randn(8, 4, generator=generator)
    model.zero_grad()
    (model(words) - targets).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()


def assert_equal(model, other):
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def without_decay(model):
    """PyTorch's groups of the toy, by weight decay."""
    vectors = [model.layer.bias]
    weights = [p for p in model.parameters() if p.ndim > 1]
    return [{"params": weights, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def test_adamw_is_pytorchs(toys):
    ours, theirs = toys
    optimizer = build_adamw(AdamWConfig(), groups=groups_of(ours), betas=BETAS)
    reference = torch.optim.AdamW(without_decay(theirs), lr=0.01, betas=BETAS)
    for number in range(5):
        step(ours, [optimizer], number)
        step(theirs, [reference], number)
    assert_equal(ours, theirs)


def test_sgd_is_pytorchs(toys):
    ours, theirs = toys
    optimizer = build_sgd(SGDConfig(0.8, nesterov=True), groups=groups_of(ours))
    reference = torch.optim.SGD(without_decay(theirs), lr=0.01, momentum=0.8, nesterov=True)
    for number in range(5):
        step(ours, [optimizer], number)
        step(theirs, [reference], number)
    assert_equal(ours, theirs)


def references(model):
    """PyTorch's Muon for the one matrix of the toy, and its AdamW for the rest."""
    others = [model.words.weight, model.kernel.weight]
    vectors = {"params": [model.layer.bias], "weight_decay": 0.0}
    muon = torch.optim.Muon(
        [model.layer.weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.1}, vectors], lr=0.01, betas=BETAS
    )
    return [muon, adamw]


@needs_muon
def test_muon_is_pytorchs_for_matrices_and_adamw_for_the_rest(toys):
    ours, theirs = toys
    optimizer = build_muon(MuonConfig(), groups=groups_of(ours), betas=BETAS)
    expected = references(theirs)
    for number in range(5):
        rate = 0.01 / (1 + number)  # as a schedule sets it
        for group in [*optimizer.param_groups, *(g for o in expected for g in o.param_groups)]:
            group["lr"] = rate
        step(ours, [optimizer], number)
        step(theirs, expected, number)
    assert_equal(ours, theirs)


@needs_muon
def test_muons_groups_keep_their_keys_and_its_state_is_one(toys):
    model, _ = toys
    optimizer = build_muon(MuonConfig(), groups=groups_of(model), betas=BETAS)
    step(model, [optimizer], 0)
    assert all({"part", "role", "full_lr"} <= group.keys() for group in optimizer.param_groups)
    assert optimizer.state.keys() == set(model.parameters())
    assert optimizer.state[model.layer.weight].keys() == {"momentum_buffer"}
    assert optimizer.state[model.kernel.weight].keys() == {"step", "exp_avg", "exp_avg_sq"}


@needs_muon
def test_muon_goes_on_from_a_state_dict(toys):
    ours, theirs = toys
    optimizer = build_muon(MuonConfig(), groups=groups_of(ours), betas=BETAS)
    step(ours, [optimizer], 0)
    theirs.load_state_dict(ours.state_dict())
    resumed = build_muon(MuonConfig(), groups=groups_of(theirs), betas=BETAS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in [*optimizer.param_groups, *resumed.param_groups]:
        group["lr"] = 0.003
    step(ours, [optimizer], 1)
    step(theirs, [resumed], 1)
    assert_equal(ours, theirs)


@needs_muon
def test_muon_computes_the_loss_of_a_closure_once(toys):
    model, _ = toys
    optimizer = build_muon(MuonConfig(), groups=groups_of(model), betas=BETAS)
    losses = []

    def closure():
        losses.append(model(torch.tensor([[0, 1, 2]])).square().mean())
        losses[-1].backward()
        return losses[-1]

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1


@needs_muon
def test_muon_alone_if_everything_is_a_matrix(toys):
    model, _ = toys
    groups = [{**groups_of(model)[1], "params": [model.layer.weight]}]
    optimizer = build_muon(MuonConfig(), groups=groups, betas=BETAS)
    assert [type(inner) for inner in optimizer.optimizers] == [torch.optim.Muon]


@needs_muon
def test_muon_without_matrices_is_one_line(toys):
    with pytest.raises(ConfigError, match="no matrix trains"):
        build_muon(MuonConfig(), groups=groups_of(toys[0])[::2], betas=BETAS)


def test_an_old_pytorch_is_found_before_anything_is_recorded(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r"'muon' needs PyTorch 2.9, and .* is installed"):
        from_plain(MuonConfig, {})


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="nesterov has no effect with momentum = 0"):
        from_plain(SGDConfig, {"momentum": 0.0, "nesterov": True})


def test_without_momentum_there_is_no_state(toys):
    model, _ = toys
    optimizer = build_sgd(SGDConfig(momentum=0.0), groups=groups_of(model))
    step(model, [optimizer], 0)
    assert not any(optimizer.state.values())
