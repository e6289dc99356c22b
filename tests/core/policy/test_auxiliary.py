"""Auxiliary heads: weighted losses on the same context, and heads insulated from the backbone."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace

import jsonschema
import pytest
import torch

from core import ActionSpec, ConfigError, Generator
from core.policy.assembly import build_policy
from core.policy.policy import Objective, Policy
from core.recipe.contents import Recipe
from core.recipe.recipe import load_recipe
from core.recipe.schema import recipe_schema
from core.training.joint_table import JointTable
from core.training.optimizer import build_optimizer
from plugins.backbones.transformer import Transformer
from tests.strangers import CAMERAS, PARTS, batch_of, build, catalogue

LSTM = 'name = "lstm"\nhidden_size = 16\nlayers = 1\nmlp = [16]'
REGRESSION = '[[auxiliary]]\nname = "regression"\nweight = 0.5\nhidden_size = 8'


def load(folder, more: str = REGRESSION, head: str = LSTM, overrides: Sequence[str] = ()) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(f"{PARTS}{head}\n{more}", encoding="utf-8")
    return load_recipe(path, overrides, catalogue())


def mistakes_of(folder, more: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, more)
    return [
        mistake.removeprefix(f"{folder / 'recipe.toml'}: ") for mistake in caught.value.mistakes
    ]


def losses_of(policy: Policy) -> dict[str, torch.Tensor]:
    return policy(batch_of(policy), Generator.shared((0,), torch.device("cpu"))).losses


def test_only_the_counted_losses_are_returned_and_the_state_moves_on(tmp_path):
    policy = build(tmp_path, LSTM + '\nmemory = "episode"', more=REGRESSION)
    policy.text_encoder.register_forward_hook(
        lambda _module, _arguments, tokens: replace(tokens, losses={"size": tokens.tokens.mean()})
    )
    batch, noise = batch_of(policy), Generator.shared((0,), torch.device("cpu"))
    before = policy.policy_head.initial_state(len(batch.episodes))
    whole, after = policy(batch, noise, before)
    for counted in (
        ["policy_head"],
        ["auxiliary/regression"],
        ["text_encoder", "auxiliary/regression"],
    ):
        losses, state = policy(batch, noise, before, counted)
        terms = {
            name: loss
            for name, loss in whole.items()
            if name.startswith(tuple(counted))
            or (name in ("pose", "gripper") and "policy_head" in counted)
        }
        assert losses == {"total": sum(terms.values()), **terms}
        assert all(torch.equal(state[name], after[name]) for name in after)
    with pytest.raises(ConfigError, match="losses names backbone, without a loss of its own"):
        policy(batch, noise, before, ["policy_head", "backbone"])


def gradients_of(policy: Policy, part: str = "backbone") -> list[torch.Tensor]:
    """Return each parameter's gradient of one training step; zeros where there is none."""
    policy.zero_grad()
    losses_of(policy)["total"].backward()
    parameters = getattr(policy, part).parameters()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def test_an_auxiliary_head_carries_nothing(tmp_path):
    carrying = LSTM + '\nmemory = "episode"'
    policy = build(tmp_path, carrying, more=f"[[auxiliary]]\nlabel = 'other'\n{carrying}")
    batch, noise = batch_of(policy), Generator.shared((0,), torch.device("cpu"))
    losses, state = policy(batch, noise, policy.policy_head.initial_state(len(batch.episodes)))
    later, _ = policy(batch, noise, state)
    assert later["pose"] != losses["pose"]
    assert later["auxiliary/other/pose"] == losses["auxiliary/other/pose"]


def test_terms_carry_the_heads_name_and_are_weighted(tmp_path):
    policy = build(tmp_path, LSTM, more=REGRESSION)
    losses = losses_of(policy)
    assert losses.keys() == {"total", "pose", "gripper", "auxiliary/regression/action"}
    terms = [loss for name, loss in losses.items() if name != "total"]
    torch.testing.assert_close(losses["total"], torch.stack(terms).sum())
    policy.objectives = {**policy.objectives, "regression": Objective(weight=1.0)}
    torch.testing.assert_close(
        losses["auxiliary/regression/action"],
        0.5 * losses_of(policy)["auxiliary/regression/action"],
    )


def test_an_insulated_policy_head_leaves_the_backbone_to_the_auxiliary_head(tmp_path):
    insulated = build(tmp_path, f"{LSTM}\ninsulate = true", more=REGRESSION)
    received = gradients_of(insulated)
    assert any(gradient.any() for gradient in gradients_of(insulated, "policy_head"))
    insulated.policy_head.requires_grad_(False)
    auxiliary = losses_of(insulated)["auxiliary/regression/action"]
    expected = torch.autograd.grad(auxiliary, list(insulated.backbone.parameters()))
    assert any(gradient.any() for gradient in expected)
    assert all(map(torch.equal, received, expected))
    assert any(
        (a != b).any()
        for a, b in zip(received, gradients_of(build(tmp_path, LSTM, more=REGRESSION)), strict=True)
    )


@pytest.mark.parametrize("head", ["lstm", "flow", "expert"])
def test_alone_an_insulated_head_gives_the_backbone_no_gradient(tmp_path, head):
    policy = build(tmp_path, f'name = "{head}"\ninsulate = true')
    assert not any(gradient.any() for gradient in gradients_of(policy))
    assert any(gradient.any() for gradient in gradients_of(build(tmp_path, f'name = "{head}"')))


def test_a_head_that_runs_the_backbone_cannot_be_insulated_from_it(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"policy_head\.name: 'autoregressive' runs weights of other parts.*; drop",
    ):
        load(tmp_path, head='name = "autoregressive"\ninsulate = true')


def test_an_insulated_auxiliary_head_changes_no_other_gradient(tmp_path):
    watched, alone = (
        build(tmp_path, LSTM, more=f"{REGRESSION}\ninsulate = true"),
        build(tmp_path, LSTM),
    )
    alone.load_state_dict(
        {k: v for k, v in watched.state_dict().items() if not k.startswith("auxiliary.")}
    )
    assert all(map(torch.equal, gradients_of(watched), gradients_of(alone)))
    assert all(gradient.any() for gradient in gradients_of(watched, "auxiliary"))


def test_acting_does_not_run_auxiliary_heads(tmp_path):
    policy = build(tmp_path, LSTM, more=REGRESSION)
    with torch.no_grad():
        expected, _ = policy.act(batch_of(policy), policy.initial_state(torch.arange(3)))
        for parameter in policy.auxiliary.parameters():
            parameter.fill_(torch.nan)
        received, _ = policy.act(batch_of(policy), policy.initial_state(torch.arange(3)))
    assert torch.equal(received, expected)


def test_the_joint_table_has_its_row(tmp_path):
    recipe = load(tmp_path, f"{REGRESSION}\nlearning_rate = 0.01")
    policy = build(tmp_path, LSTM, more=f"{REGRESSION}\nlearning_rate = 0.01")
    optimizer = build_optimizer(policy, recipe)
    losses_of(policy)["total"].backward()
    table = JointTable(policy, optimizer)
    with table.measure(1):
        optimizer.step()
    row = table.rows[-1]
    assert (row.part, row.learning_rate) == ("auxiliary/regression", 0.01)
    assert row.parameters == row.trainable > 0
    assert row.gradient_norm > 0
    assert row.update > 0


def test_several_of_one_name_need_labels(tmp_path):
    assert mistakes_of(tmp_path, f"{REGRESSION}\n{REGRESSION}") == [
        "auxiliary.1.label: another head is called 'regression', too; set label"
    ]
    recipe = load(tmp_path, f'{REGRESSION}\n{REGRESSION}\nlabel = "second"')
    assert list(recipe.auxiliary) == ["regression", "second"]


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        (f"{REGRESSION}\nwieght = 2.0", "auxiliary.0.wieght: unknown key"),
        (f"{REGRESSION}\nhidden = 2", "auxiliary.0.hidden: unknown key"),
        ('[[auxiliary]]\nname = "mpl"', "auxiliary.0.name: no policy_head is called 'mpl'"),
        ('[[auxiliary]]\nname = "regression"\nweight = 0.0', "auxiliary.0.weight: "),
        (
            '[[auxiliary]]\nname = "regression"\nlabel = "a/b"',
            "auxiliary.0.label: expected lower-case letters",
        ),
        (
            '[[auxiliary]]\nname = "regression"\nlabel = "policy_head"',
            "auxiliary.0.label: another head",
        ),
        (f"{REGRESSION}\ntrain = false", "auxiliary.0.train: expected true"),
        ('[auxiliary]\nname = "regression"', "auxiliary: expected tables [[auxiliary]]"),
    ],
)
def test_mistakes_are_one_line_each(tmp_path, more, mistake):
    (received,) = mistakes_of(tmp_path, more)
    assert received.startswith(mistake)


def test_a_mistake_that_a_head_finds_is_one_of_its_own_section(tmp_path):
    by_step = '[[auxiliary]]\nname = "mlp"\nlabel = "again"\nby_step = true'
    with pytest.raises(ConfigError, match=r"^auxiliary/again\.by_step: "):
        build(tmp_path, LSTM, more=by_step)


def test_a_label_that_torch_has_taken_is_a_mistake_of_the_recipe(tmp_path):
    with pytest.raises(ConfigError, match=r"^auxiliary/keys\.label: "):
        build(tmp_path, LSTM, more='[[auxiliary]]\nname = "regression"\nlabel = "keys"')


def test_a_policy_head_has_no_weight_of_its_own(tmp_path):
    with pytest.raises(ConfigError, match=r"policy_head\.weight: unknown key"):
        load(tmp_path, REGRESSION, f"{LSTM}\nweight = 0.5")


def test_the_resolved_recipe_is_the_recipe(tmp_path):
    recipe = load(
        tmp_path, f'{REGRESSION}\nlabel = "coarse"\ninsulate = true', f"{LSTM}\ninsulate = true"
    )
    path = tmp_path / "resolved.toml"
    path.write_text(recipe.as_toml(), encoding="utf-8")
    assert load_recipe(path, [], catalogue()) == recipe
    (table,) = tomllib.loads(recipe.as_toml())["auxiliary"]
    expected = {
        "name": "regression",
        "weight": 0.5,
        "label": "coarse",
        "insulate": True,
        "hidden_size": 8,
        "train": True,
    }
    assert expected.items() <= table.items()


def test_the_schema_knows_auxiliary_heads_and_what_belongs_to_one_kind(tmp_path):
    schema = recipe_schema(catalogue())
    resolved = tomllib.loads(load(tmp_path, REGRESSION, f"{LSTM}\ninsulate = true").as_toml())
    jsonschema.validate(resolved, schema)
    resolved["vision_encoder"]["projection"] = "mlp3"
    jsonschema.validate(resolved, schema)
    for section, key in (
        (resolved["policy_head"], "weight"),
        (resolved["auxiliary"][0], "projection"),
    ):
        section[key] = 1.0
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(resolved, schema)
        del section[key]


class Forgetful(Transformer):
    """A backbone whose class offers layers, and whose instance does not."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.offers, self.layer_spec = frozenset(), None


def test_a_head_is_not_built_where_a_built_backbone_keeps_no_layers(tmp_path):
    recipe = load(tmp_path, '[[auxiliary]]\nname = "expert"')
    part = recipe.parts["backbone"]
    part = replace(part, component=replace(part.component, build=Forgetful))
    recipe = replace(recipe, parts={**recipe.parts, "backbone": part})
    with pytest.raises(
        ConfigError,
        match=r"^auxiliary/expert\.name: 'expert' needs the keys and values of every layer, and",
    ):
        build_policy(recipe, CAMERAS, ActionSpec(window=1, horizon=3, dim=4), proprio_dim=5)
