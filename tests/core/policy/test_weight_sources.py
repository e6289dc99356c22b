"""Parts of one published model: all pretrained, or the others are random on purpose."""

from types import SimpleNamespace

import pytest
from torch import nn

from core.errors import ConfigError
from core.policy.weight_sources import check_parts_of_one_model, describe_initial_weights
from core.recipe.start import StartConfig
from core.registry.part_settings import PartSettings


class Published(nn.Module):
    """A part with published weights."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def load_pretrained(self, weights):
        raise NotImplementedError


def policy_and_recipe(**settings):
    modules = {
        "vision_encoder": Published("some/vlm"),
        "text_encoder": Published("some/vlm"),
        "backbone": Published("other/vlm"),
        "action_tokens": nn.Identity(),
    }
    policy = nn.ModuleDict(modules)
    parts = {
        kind: SimpleNamespace(settings=PartSettings(pretrained=settings.get(kind)))
        for kind in modules
    }
    for kind, module in modules.items():
        setattr(policy, kind, module)
    return policy, SimpleNamespace(start=StartConfig(), parts=parts, auxiliary={})


def test_a_forgotten_part_of_a_pretrained_model_is_refused():
    with pytest.raises(ConfigError) as caught:
        check_parts_of_one_model(*policy_and_recipe(vision_encoder=True))
    assert caught.value.mistakes == [
        "text_encoder.pretrained: unset, and other parts of 'some/vlm' are pretrained; set it, or, "
        "if random weights are meant, write pretrained = false"
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vision_encoder": True, "text_encoder": False},
        {"vision_encoder": "/runs/a", "text_encoder": True},
        {"backbone": True},
    ],
)
def test_all_or_none_or_random_on_purpose_is_taken(settings):
    check_parts_of_one_model(*policy_and_recipe(**settings))


def test_a_line_says_where_the_initial_weights_come_from():
    line = describe_initial_weights(*policy_and_recipe(vision_encoder=True, backbone="/runs/a"))
    assert line == (
        "initial weights: vision_encoder of some/vlm; text_encoder, action_tokens random; "
        "backbone of /runs/a"
    )
