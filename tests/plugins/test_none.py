"""No instruction: a policy of a single task builds, learns and acts without words."""

import pytest
import torch

from core import ConfigError
from core.policy.assembly import build_policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from plugins.text.none import NoText, NoTextConfig
from tests.contexts import noise
from tests.core.policy.test_policy import CAMERAS, RECIPE, batch_of
from tests.plugins.test_lstm import MIXED

WORDS = '[text_encoder]\nname = "sentencepiece"\nwidth = 24\n'


def policy_without_words(folder, *overrides):
    assert WORDS in RECIPE
    (folder / "recipe.toml").write_text(RECIPE.replace(WORDS, '[text_encoder]\nname = "none"\n'))
    recipe = load_recipe(folder / "recipe.toml", [*overrides, "data.window=3"], load_plugins())
    return build_policy(recipe, CAMERAS, MIXED, proprio_dim=5)


def test_it_gives_no_tokens_in_the_type_of_the_policy():
    encoder = NoText(NoTextConfig()).to(torch.bfloat16)
    assert list(encoder.tokenize("open the drawer")) == []
    tokens = encoder(torch.zeros(3, 0, dtype=torch.int64), None).tokens
    assert tokens.shape == (3, 0, 0)
    assert tokens.dtype == torch.bfloat16
    assert not list(encoder.parameters())
    assert not encoder.state_dict()


@pytest.mark.parametrize("layout", ["image_text_action", "text_image_action"])
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_a_policy_learns_and_acts_without_words(tmp_path, formulation, layout):
    policy = policy_without_words(
        tmp_path, f"action_tokens.formulation={formulation}", f"action_tokens.layout={layout}"
    )
    batch = batch_of(policy, 3, horizon=MIXED.horizon, dim=MIXED.dim)
    assert batch.text_ids.shape == (3, 0)
    policy(batch, noise()).losses["total"].backward()
    assert all(p.grad is not None for p in policy.parameters())
    policy.eval()
    with torch.no_grad():
        window = policy.predict(batch, noise())
        state = policy.initial_state(torch.arange(3))
        for t in range(3):
            images = {name: x[:, t : t + 1] for name, x in batch.images.items()}
            frame = batch.__class__(
                images, batch.instructions, batch.text_ids, None, batch.proprio[:, t : t + 1]
            )
            actions, state = policy.act(frame, state)
            torch.testing.assert_close(actions, window[:, t], rtol=1e-5, atol=1e-5)


def test_an_encoder_that_sees_by_the_instruction_refuses_it(tmp_path):
    section = '[vision_encoder]\nname = "timm_vit"\nmodel = "test_vit"\nimage_size = 32\n'
    assert section in RECIPE
    text = RECIPE.replace(WORDS, '[text_encoder]\nname = "none"\n')
    (tmp_path / "recipe.toml").write_text(
        text.replace(section, '[vision_encoder]\nname = "film_cnn"\n')
    )
    recipe = load_recipe(tmp_path / "recipe.toml", ["data.window=3"], load_plugins())
    with pytest.raises(ConfigError) as caught:
        build_policy(recipe, CAMERAS, MIXED, proprio_dim=5)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("vision_encoder.name: 'film_cnn' sees by the instruction, and")
    assert mistake.endswith("; choose another text_encoder.name, or another vision_encoder.name")
