"""The keys of every part: which of them contradict each other."""

import pytest

from core.registry.part_settings import SETTINGS_OF_KIND, PartSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": False, "learning_rate": 1e-3}, "have no effect on a part with train = false"),
        ({"train": False, "weight_decay": 0.1}, "have no effect on a part with train = false"),
        ({"train": False, "freeze": ("blocks",)}, "freeze is for parts with train = true; that"),
        ({"train": "lora", "freeze": ("blocks",)}, "lora_targets and lora_train say what trains"),
        ({"lora_train": ("norm*",)}, "lora_train: no effect without train"),
        ({"quantize": "nf4"}, "quantize needs pretrained weights that do not train"),
        (
            {"quantize": "nf4", "pretrained": True},
            "quantize needs pretrained weights that do not train",
        ),
        ({"lora_rank": 4}, "lora_rank: no effect without train"),
        ({"lora_rank": 4, "lora_dropout": 0.0, "train": False}, "lora_rank, lora_dropout: no eff"),
    ],
)
def test_keys_without_an_effect_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PartSettings(**values)


@pytest.mark.parametrize(
    ("train", "pretrained", "expected"),
    [
        (True, True, False),
        (False, True, True),
        ("lora", "some/model", True),
        (False, False, False),
        (False, None, False),
    ],
)
def test_the_weights_of_a_part_stay_if_they_are_pretrained_and_not_trained(
    train, pretrained, expected
):
    settings = PartSettings(train=train, pretrained=pretrained)
    assert settings.keeps_pretrained_weights is expected


def test_frozen_weights_of_a_part_that_trains_stay():
    assert PartSettings(pretrained=True, freeze=("blocks",)).keeps_pretrained_weights
    assert not PartSettings(pretrained=False, freeze=("blocks",)).keeps_pretrained_weights


def test_no_kind_has_a_key_that_every_part_has_already():
    every_part = set(PartSettings.__dataclass_fields__)
    for settings in SETTINGS_OF_KIND.values():
        assert not every_part & set(settings.__dataclass_fields__)
