"""Freezing by pattern: which weights match, what rests, and what is refused."""

import re

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from core.policy.freezing import freeze_weights, match_weights, modules_with_fixed_statistics


def block():
    return nn.ModuleDict(
        {"norm1": nn.LayerNorm(4), "attn": nn.Linear(4, 4), "drop": nn.Dropout(0.5)}
    )


def network():
    return nn.ModuleDict(
        {
            "model": nn.ModuleDict(
                {
                    "embed": nn.Conv2d(3, 4, 1),
                    "bn": nn.BatchNorm2d(4),
                    "blocks": nn.ModuleList(block() for _ in range(12)),
                }
            ),
            "head": nn.Linear(4, 2),
        }
    )


def frozen(part):
    return {name for name, weight in part.named_parameters() if not weight.requires_grad}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("blocks.[0-3].*", r"model\.blocks\.[0-3]\..*"),
        ("blocks.[0-3]", r"model\.blocks\.[0-3]\..*"),
        ("model.blocks.1", r"model\.blocks\.1\..*"),
        ("norm*", r".*\.norm1\..*"),
        ("*.bias", r".*\.bias"),
        ("model", r"model\..*"),
        ("head.weight", r"head\.weight"),
    ],
)
def test_a_pattern_matches_names_ends_of_names_and_modules(pattern, expected):
    part = network()
    freeze_weights(part, [pattern], "backbone")
    names = {name for name, _ in part.named_parameters() if re.fullmatch(expected, name)}
    assert names
    assert frozen(part) == names


def test_what_has_no_trainable_weight_rests():
    part = network()
    resting = freeze_weights(part, ["blocks.[0-3]", "embed", "bn"], "backbone")
    names = {id(module): name for name, module in part.named_modules()}
    expected = {"model.embed", "model.bn", *(f"model.blocks.{i}" for i in range(4))}
    assert {names[id(module)] for module in resting} == expected


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (
            "blokcs.1",
            "backbone.freeze: no weight is called 'blokcs.1'; did you mean 'model.blocks.1'?",
        ),
        ("xyz", "backbone.freeze: no weight is called 'xyz'; names begin with: model, head"),
        ("*", "backbone.freeze: matches all weights; write train = false instead"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(pattern, line):
    with pytest.raises(ConfigError) as caught:
        freeze_weights(network(), [pattern], "backbone")
    assert caught.value.mistakes == [line]


def test_a_weight_that_two_patterns_match_is_returned_once():
    assert len(match_weights(network(), ["head", "head.*"], "key")) == 2


def test_statistics_are_fixed_where_the_weights_are():
    part = network()
    assert not modules_with_fixed_statistics(part)
    part["model"].requires_grad_(False)
    assert modules_with_fixed_statistics(part) == [part["model"]["bn"]]
    assert torch.is_tensor(part["model"]["bn"].running_mean)
