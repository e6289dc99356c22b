"""Random weights that would stay: refused where `pretrained` was forgotten, taken where meant."""

import pytest

from core.errors import ConfigError
from core.recipe.contents import PARTS
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from tests.core.training.conftest import RECIPE

HEAD_RESTS = """train.stages=[{steps=6, parts=["vision_encoder", "text_encoder", "backbone",
"action_tokens"]}]"""


def load(tmp_path, *overrides):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return load_recipe(path, overrides, load_plugins())


@pytest.mark.parametrize(
    ("part", "override", "reason"),
    [
        ("backbone", "backbone.train=false", "train = false"),
        ("text_encoder", "text_encoder.train=false", "train = false"),
        ("backbone", "backbone.train=lora", 'train = "lora"'),
        ("backbone", "backbone.freeze=['blocks']", "freeze"),
        ("policy_head", HEAD_RESTS, "no stage names the part, which"),
    ],
)
def test_random_weights_that_stay_are_refused_until_they_are_meant(
    tmp_path, part, override, reason
):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, override)
    (line,) = caught.value.mistakes
    assert line.endswith(
        f"{part}.pretrained: unset, and {reason} would keep random weights; name where its "
        "weights come from, or, if random weights are meant, write pretrained = false"
    )
    recipe = load(tmp_path, override, f"{part}.pretrained=false")
    assert recipe.parts[part].settings.pretrained is False
    again = tmp_path / "resolved.toml"
    again.write_text(recipe.as_toml())
    assert load_recipe(again, [], load_plugins()) == recipe
    assert load(tmp_path, override, f"{part}.pretrained=runs/other")


def test_all_forgotten_parts_are_named_at_once(tmp_path):
    frozen = [f"{kind}.train=false" for kind in PARTS[:3]]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *frozen)
    named = [line.split(": ")[1].partition(".")[0] for line in caught.value.mistakes]
    assert named == list(PARTS[:3])


def test_random_weights_that_train_need_no_word(tmp_path):
    assert load(tmp_path).parts["backbone"].settings.pretrained is None


def test_parts_that_begin_with_a_run_need_no_source_of_their_own(tmp_path):
    settings = ["backbone.train=false", f"start.run={tmp_path}"]
    assert load(tmp_path, *settings).start.run == tmp_path
    with pytest.raises(ConfigError, match=r"backbone\.pretrained: unset, and train = false"):
        load(tmp_path, *settings, 'start.anew=["backbone"]')
