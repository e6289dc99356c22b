"""Mistakes in the stages of a recipe, one line each."""

import pytest

from core.errors import ConfigError
from core.recipe.contents import PARTS
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from tests.core.training.conftest import RECIPE


def mistakes_of(tmp_path, stages, *overrides):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    with pytest.raises(ConfigError) as error:
        load_recipe(path, [f"train.stages={stages}", *overrides], load_plugins())
    return [line.removeprefix(f"{path}: ") for line in error.value.mistakes]


@pytest.mark.parametrize(
    ("stages", "mistake"),
    [
        ('[{steps=6, parts=["backbon"]}]', "parts: 'backbon' is no part of this recipe; did you"),
        ('[{steps=6, parts=["backbone"], losses=["x"]}]', "losses: 'x' is no part of this recipe"),
        ('[{steps=6, parts=["auxiliary/x"]}]', "parts: 'auxiliary/x' is no part of this recipe"),
        ('[{steps=6, parts=["policy_head"], losses=["backbone"]}]', "parts: 'policy_head' cannot"),
        ('[{steps=6, parts=["backbone"], losses=["projections"]}]', "losses: 'projections' have"),
        ("[{steps=6, parts=[]}]", "parts names none"),
        ('[{steps=6, parts=["backbon.norm"]}]', "parts: 'backbon' is no part of this recipe; did"),
        (
            '[{steps=6, parts=["policy_head.lstm", "policy_head"]}]',
            "parts: 'policy_head.lstm' is in 'policy_head', which is named, too; drop one of them",
        ),
        (
            '[{steps=6, parts=["backbone"], freeze=["policy_head.lstm"]}]',
            "freeze: 'policy_head.lstm' is in nothing that parts names, so it rests; drop it",
        ),
        (
            '[{steps=6, parts=["backbone", "policy_head"], freeze=["policy_head"]}]',
            "freeze: 'policy_head' would not train at all; drop it in parts and here",
        ),
        ('[{steps=6, parts=["backbone"], freeze=["x.y", "x.y"]}]', " freeze names one twice: x.y"),
        ('[{steps=6, parts=["backbone", "backbone"]}]', " parts names one twice: backbone"),
        ('[{steps=6, part=["backbone"]}]', "part"),
    ],
)
def test_mistakes_in_a_stage(tmp_path, stages, mistake):
    assert any(
        line.startswith("train.stages.0") and mistake in line
        for line in mistakes_of(tmp_path, stages)
    )


def test_a_frozen_part_cannot_train_in_a_stage(tmp_path):
    frozen = ("backbone.train=false", *(f"{kind}.pretrained=false" for kind in PARTS))
    lines = mistakes_of(tmp_path, '[{steps=6, parts=["backbone"]}]', *frozen)
    assert lines == [
        "train.stages.0.parts: 'backbone' has train = false in its section; drop the key there, "
        "or the name here"
    ]


def test_the_steps_of_a_run_are_whole_rounds_of_its_stages(tmp_path):
    lines = mistakes_of(tmp_path, '[{steps=4, parts=["backbone"]}]')
    assert lines == ["train: steps 6 must be a multiple of the steps of all stages together = 4"]


def test_an_insulated_loss_trains_no_part_below_its_head(tmp_path):
    stages = '[{steps=6, parts=["backbone", "policy_head"], losses=["policy_head"]}]'
    random = [f"{kind}.pretrained=false" for kind in PARTS]
    assert mistakes_of(tmp_path, stages, *random, "policy_head.insulate=true") == [
        "train.stages.0.parts: 'backbone' cannot train, because all heads in losses have insulate ="
        " true; add a head without it there, or drop it here"
    ]


def test_a_part_with_a_mistake_in_its_section_is_known_to_the_stages(tmp_path):
    lines = mistakes_of(tmp_path, '[{steps=6, parts=["backbone"]}]', "backbone.heads=-1")
    assert lines == ["backbone.heads: expected greater than 0, got -1"]
