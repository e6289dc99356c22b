"""Heads that a recipe's backbone or text encoder cannot serve, refused before anything is built."""

import pytest

from core import ConfigError
from core.recipe.recipe import load_recipe
from tests.strangers import PARTS, catalogue

LSTM = 'name = "lstm"\nhidden_size = 8\nlayers = 1\nmlp = [8]'
IDENTITY = (
    'name = "transformer"\nwidth = 32\ndepth = 2\nheads = 4',
    'name = "identity"\nwidth = 32',
)


def mistakes_of(folder, head: str, *changes: tuple[str, str], more: str = "") -> list[str]:
    """Return the mistakes of a recipe with a policy head, and texts of it replaced."""
    text = f"{PARTS}{head}\n{more}"
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(folder / "recipe.toml", [], catalogue())
    return caught.value.mistakes


@pytest.mark.parametrize("head", ["expert", "autoregressive"])
def test_layers_that_a_backbone_does_not_offer_are_refused_with_those_that_do(tmp_path, head):
    mistake = mistakes_of(tmp_path, f'name = "{head}"', IDENTITY)[0]
    assert f"policy_head.name: '{head}' needs " in mistake
    assert mistake.endswith("; layers are offered by 'huggingface' or 'kosmos2' or 'transformer'")


def test_a_head_of_action_tokens_is_refused_beside_a_backbone_that_mixes_nothing(tmp_path):
    (mistake,) = mistakes_of(tmp_path, 'name = "regression"', IDENTITY)
    assert "reads action tokens, and in this backbone they see no other tokens" in mistake


def test_an_auxiliary_head_is_called_by_its_label(tmp_path):
    auxiliary = '[[auxiliary]]\nname = "expert"\nlabel = "second"'
    mistakes = mistakes_of(tmp_path, LSTM, IDENTITY, more=auxiliary)
    assert any("auxiliary/second.name: 'expert' needs the keys" in line for line in mistakes)


def test_a_head_that_runs_the_backbone_cannot_be_insulated(tmp_path):
    (mistake,) = mistakes_of(tmp_path, 'name = "autoregressive"\ninsulate = true')
    assert "always sends gradients to them; drop insulate" in mistake
