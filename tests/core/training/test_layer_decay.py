"""Learning rates that fall from the last block to the first."""

import pytest
from torch import nn

from core import ConfigError, import_library
from core.training.layer_decay import rate_factors
from core.training.optimizer import build_optimizer
from tests.core.policy.test_auxiliary import LSTM, REGRESSION, build, load


class Tower(nn.Module):
    """A stem, three blocks and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.norm = nn.LayerNorm(2)


class Towers(nn.Module):
    """Two towers, as of two cameras, between a first and a last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.towers = nn.ModuleDict({"left": Tower(), "right": Tower()})
        self.last = nn.Linear(2, 2)

    @property
    def blocks(self) -> list[nn.Module]:
        return [block for tower in self.towers.values() for block in tower.blocks]


def factors_by_name(part, decay):
    factors = rate_factors(part, decay)
    return {name: factors[parameter] for name, parameter in part.named_parameters()}


def test_rates_fall_from_what_follows_the_blocks_to_what_precedes_them():
    factors = factors_by_name(Tower(), 0.5)
    assert factors["norm.weight"] == 1
    assert [factors[f"blocks.{i}.bias"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert factors["stem.weight"] == 0.5**4


def test_each_stack_of_blocks_counts_for_itself():
    factors = factors_by_name(Towers(), 0.5)
    for side in ("left", "right"):
        assert factors[f"towers.{side}.stem.weight"] == 0.5**4
        assert factors[f"towers.{side}.blocks.2.weight"] == 0.5
        assert factors[f"towers.{side}.norm.bias"] == 1
    assert (factors["first.weight"], factors["last.weight"]) == (0.5**4, 1)


def test_the_factors_are_timms():
    model = import_library("timm").create_model("vit_tiny_patch16_224", depth=3, num_classes=4)
    groups = import_library("timm.optim").param_groups_layer_decay(model, layer_decay=0.75)
    expected = {p: group["lr_scale"] for group in groups for p in group["params"]}
    factors = rate_factors(model, 0.75)
    assert factors is not None
    # timm counts the last norm to the last block; in BEiT it has the rate of what follows
    compared = [p for name, p in model.named_parameters() if not name.startswith("norm.")]
    assert [factors[p] for p in compared] == pytest.approx([expected[p] for p in compared])


def test_the_optimizer_has_the_rates(tmp_path):
    policy = build(tmp_path, LSTM)
    plain = build_optimizer(policy, load(tmp_path, ""))
    decayed = build_optimizer(policy, load(tmp_path, "", overrides=["backbone.layer_decay=0.5"]))
    factors = rate_factors(policy.backbone, 0.5)
    rates = {p: g["full_lr"] for g in plain.param_groups for p in g["params"]}
    for group in decayed.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == group["full_lr"] == rates[parameter] * factors.get(parameter, 1.0)
    assert [p for g in decayed.param_groups for p in g["params"]] == [*rates]


def test_a_part_without_blocks_is_refused(tmp_path):
    recipe = load(tmp_path, "", head=f"{LSTM}\nlayer_decay = 0.5")
    with pytest.raises(ConfigError, match=r"policy_head\.layer_decay: .* no repeated blocks; drop"):
        build_optimizer(build(tmp_path, LSTM), recipe)
    auxiliary = f"{REGRESSION}\nlayer_decay = 0.5"
    recipe = load(tmp_path, auxiliary)
    with pytest.raises(ConfigError, match=r"auxiliary/regression\.layer_decay: .* drop"):
        build_optimizer(build(tmp_path, LSTM, more=auxiliary), recipe)
