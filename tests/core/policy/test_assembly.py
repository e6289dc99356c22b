"""From a recipe to a policy: needs that are not met, other editions, and weights from a run."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from core import (
    ActionSpec,
    ActionTokens,
    Backbone,
    ConfigError,
    PolicyHead,
    TextEncoder,
    TokenSequence,
    VisionEncoder,
)
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.recipe.contents import PARTS as KINDS, Recipe
from core.recipe.recipe import load_recipe
from core.registry.components import Component, Plugin
from core.weights.checkpoint import save_checkpoint
from plugins.backbones.transformer import Transformer
from tests.strangers import CAMERAS, PARTS, batch_of, catalogue

ACTION = ActionSpec(window=1, horizon=2, dim=3)
STRANGER = Plugin("stranger", "joinery-stranger", "1.2")
REGRESSION = '[[auxiliary]]\nname = "regression"\nhidden_size = 8'
LSTM = 'name = "lstm"\nhidden_size = 8\nlayers = 1\nmlp = [8]'


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


def load(folder, head: str = LSTM, *changes: tuple[str, str]) -> Recipe:
    text = f"{PARTS}{head}\n"
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return load_recipe(folder / "recipe.toml", [], catalogue())


def with_part(recipe: Recipe, kind: str, build) -> Recipe:
    """Return the recipe with one part replaced by what a third party's plugin builds."""
    part = recipe.parts[kind]
    component = Component(part.component.kind, "strange", NoConfig, build, STRANGER)
    return replace(
        recipe, parts={**recipe.parts, kind: replace(part, component=component, config=NoConfig())}
    )


def build(recipe: Recipe, proprio_dim: int = 5):
    return build_policy(recipe, CAMERAS, ACTION, proprio_dim)


def head_class(**attributes) -> type[PolicyHead]:
    """Return the class of a head that predicts zeros."""

    def make(self, config, *, context, action):
        nn.Module.__init__(self)
        self.shape = (action.horizon, action.dim)

    def forward(self, context, generator):
        return context.readout.new_zeros(*context.readout.shape[:2], *self.shape)

    def loss(self, context, batch, generator):
        return {"zero": torch.zeros(())}

    return type(
        "Head", (PolicyHead,), {"__init__": make, "forward": forward, "loss": loss, **attributes}
    )


# -------------------------------------------------------------------------------------------- needs


def test_a_head_of_vision_needs_neither_a_backbone_nor_action_tokens(tmp_path):
    no_action_tokens = 'name = "learned"', 'name = "learned"\ncount = 0'
    recipe = load(tmp_path, LSTM, no_action_tokens)
    with pytest.raises(
        ConfigError, match=r"reads action tokens, and there are none; set action_tokens\.count = 1"
    ):
        build(recipe)
    component = catalogue()["backbone"].get("identity")
    identity = replace(
        recipe.parts["backbone"], component=component, config=component.config(width=32)
    )
    recipe = replace(recipe, parts={**recipe.parts, "backbone": identity})
    build(with_part(recipe, "policy_head", head_class(needs=frozenset({"vision"}))))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (
            frozenset({"key_values"}),
            "needs key_values, which nothing offers; there are tokens, keys_values",
        ),
        (
            frozenset({"logits"}),
            "needs the text encoder's output layer, which takes hidden states of width 24",
        ),
        (frozenset({"proprio"}), "needs proprioception, and the data record none"),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path, needs, message):
    with pytest.raises(ConfigError, match=message):
        build(with_part(load(tmp_path), "policy_head", head_class(needs=needs)), proprio_dim=0)


def test_needs_stand_on_the_class(tmp_path):
    head = head_class()

    def make(config, *, context, action):
        built = head(config, context=context, action=action)
        built.needs = frozenset({"tokens"})
        return built

    class Changing(head):
        def __init__(self, config, *, context, action):
            super().__init__(config, context=context, action=action)
            self.needs = frozenset({"tokens"})

    # The needs of a head that a function builds are read once it is built.
    build(with_part(load(tmp_path), "policy_head", make))
    with pytest.raises(
        ConfigError, match="the head's needs are not those of its class; say them on the class"
    ):
        build(with_part(load(tmp_path), "policy_head", Changing))


def test_a_backbone_that_looks_one_way_refuses_a_layout_that_asks_for_both(tmp_path):
    class OneWay(Transformer):
        both_ways = False

        def __init__(self, config):
            super().__init__(
                catalogue()["backbone"].get("transformer").config(width=32, depth=1, heads=4)
            )

    causal = load(tmp_path)
    build(with_part(causal, "backbone", OneWay))
    prefix = load(tmp_path, LSTM, ('name = "learned"', 'name = "learned"\nattention = "prefix"'))
    with pytest.raises(
        ConfigError,
        match=r"action_tokens\.attention: backbone 'strange' lets no token see a later one",
    ):
        build(with_part(prefix, "backbone", OneWay))


# ----------------------------------------------------------------------------------------- editions


class FirstEditionHead(PolicyHead):
    def __init__(self, config, *, width, action):
        super().__init__()

    def forward(self, readout):
        return readout

    def loss(self, readout, batch):
        return {}


class HalfChangedHead(FirstEditionHead):
    def __init__(self, config, *, context, action):
        nn.Module.__init__(self)


class FirstEditionBackbone(Backbone):
    width = 32

    def __init__(self, config):
        super().__init__()

    def forward(self, sequence: TokenSequence):
        return sequence.tokens * sequence.is_action[..., None]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            FirstEditionHead,
            r"policy_head\.name: 'strange' of plugin 'stranger' \(joinery-stranger 1\.2\): "
            r"its build asks for width, and Joinery offers context, action beside the config, at "
            r".*test_assembly\.py:\d+; it is written for another edition of Joinery: install a "
            r"version for this one, or change it as docs/contracts\.md, \"From the first edition\"",
        ),
        (
            HalfChangedHead,
            r"has methods with other arguments: forward, loss; it is written for another edition",
        ),
        (
            lambda config, *, context, action: nn.Linear(2, 2),
            r"built a Linear, which is no PolicyHead; derive it",
        ),
    ],
)
def test_a_head_of_another_edition_is_told_what_to_change(tmp_path, head, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(with_part(load(tmp_path), "policy_head", head))
    assert len(caught.value.mistakes) == 1


@pytest.mark.parametrize(
    ("kind", "contract", "unset"),
    [
        ("vision_encoder", VisionEncoder, "self.width and self.cameras"),
        ("text_encoder", TextEncoder, "self.width"),
        ("backbone", Backbone, "self.width"),
        ("action_tokens", ActionTokens, "self.count"),
    ],
)
def test_a_part_is_told_which_attributes_it_has_not_set(tmp_path, kind, contract, unset):
    def make(config):
        return type(
            "Bare",
            (contract,),
            dict.fromkeys(contract.__abstractmethods__, lambda self, *arguments: None),
        )()

    message = (
        rf"^{kind}\.name: 'strange' of plugin .* must set {unset}, as {contract.__name__} declares$"
    )
    with pytest.raises(ConfigError, match=message):
        build(with_part(load(tmp_path), kind, make))


def test_a_backbone_of_the_first_edition_is_told_what_to_read(tmp_path):
    policy = build(with_part(load(tmp_path), "backbone", FirstEditionBackbone))
    with pytest.raises(ConfigError, match=r"is_action, which is gone: sequence\.kind says"):
        policy(batch_of(policy, 1), None)


# --------------------------------------------------------------------------------- weights of a run


class Loudness(Backbone):
    """A third party's backbone, which cannot load published weights."""

    def __init__(self, config):
        super().__init__()
        self.width = 32
        self.loudness = nn.Parameter(torch.rand(32))
        self.register_buffer("offset", torch.rand(32))

    def forward(self, sequence: TokenSequence):
        return sequence.tokens * self.loudness + self.offset


def saved_run(folder, recipe: Recipe) -> Policy:
    """Write a run of one checkpoint into a folder; return its policy, which no other one equals."""
    torch.manual_seed(1)
    policy = build(recipe)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    save_checkpoint(folder, policy, optimizer, {"step": 5}, 1, policy.frozen_weights)
    (folder / "recipe.toml").write_text(recipe.as_toml())
    return policy


def starting_from(recipe: Recipe, source, *names: str) -> Recipe:
    """Return the recipe with `pretrained = source` for the kinds and labels in `names`."""

    def parts(group):
        return {
            name: replace(part, settings=replace(part.settings, pretrained=str(source)))
            if name in names
            else part
            for name, part in group.items()
        }

    return replace(recipe, parts=parts(recipe.parts), auxiliary=parts(recipe.auxiliary))


def equal_names(left: Policy, right: Policy) -> set[str]:
    """Return the names of the weights that are the same in two policies."""
    others = right.state_dict()
    return {name for name, x in left.state_dict().items() if torch.equal(x, others[name])}


@pytest.mark.parametrize(
    ("part", "prefixes"),
    [
        ("vision_encoder", ("vision_encoder.", "projections.vision.")),
        ("text_encoder", ("text_encoder.", "projections.text.")),
        ("backbone", ("backbone.",)),
        ("action_tokens", ("action_tokens.",)),
        ("policy_head", ("policy_head.",)),
        ("regression", ("auxiliary.regression.",)),
    ],
)
def test_a_part_starts_with_the_weights_of_a_run(tmp_path, part, prefixes):
    recipe = load(tmp_path, f"{LSTM}\n{REGRESSION}")
    source = saved_run(tmp_path / "run", recipe)
    torch.manual_seed(0)
    fresh = build(recipe)
    torch.manual_seed(0)
    started = build(starting_from(recipe, tmp_path / "run", part))
    own = {name for name in source.state_dict() if name.startswith(prefixes)}
    assert own
    assert all(any(name.startswith(prefix) for name in own) for prefix in prefixes)
    assert own - equal_names(source, fresh), "these weights are random without the run"
    assert own <= equal_names(source, started)
    assert source.state_dict().keys() - own <= equal_names(fresh, started)


def test_all_parts_can_start_from_one_run(tmp_path):
    recipe = load(tmp_path, f"{LSTM}\n{REGRESSION}")
    source = saved_run(tmp_path / "run", recipe)
    started = build(starting_from(recipe, tmp_path / "run", *KINDS, "regression"))
    assert equal_names(source, started) == source.state_dict().keys()


def test_a_part_of_a_third_party_that_loads_nothing_itself_starts_from_a_run(tmp_path):
    recipe = with_part(load(tmp_path), "backbone", Loudness)
    source = saved_run(tmp_path / "run", recipe)
    started = build(starting_from(recipe, tmp_path / "run", "backbone"))
    assert {"backbone.loudness", "backbone.offset"} <= equal_names(source, started)


def test_from_a_checkpoint_only_frozen_parts_are_read_from_the_run(tmp_path):
    recipe = load(tmp_path)
    saved_run(tmp_path / "run", recipe)
    recipe = starting_from(recipe, tmp_path / "run", "backbone")
    (tmp_path / "run").rename(tmp_path / "gone")
    build_policy(recipe, CAMERAS, ACTION, 5, resumed_run=tmp_path)
    part = recipe.parts["backbone"]
    part = replace(part, settings=replace(part.settings, train=False))
    frozen = replace(recipe, parts={**recipe.parts, "backbone": part})
    with pytest.raises(ConfigError, match=rf"and '{tmp_path / 'run'}' is no folder of a run; name"):
        build_policy(frozen, CAMERAS, ACTION, 5, resumed_run=tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "backbone",
            ("depth = 2", "depth = 1"),
            r"^backbone\.pretrained: '.*/step_00000005' does not fit; unexpected: backbone\.",
        ),
        (
            "text_encoder",
            ("width = 32", "width = 24"),
            r"^text_encoder\.pretrained: .*; unexpected: projections\.text\.bias, projections\.",
        ),
        (
            "other",
            ('name = "regression"', 'name = "regression"\nlabel = "other"'),
            r"^auxiliary/other\.pretrained: .*; missing: auxiliary\.other\.",
        ),
    ],
)
def test_a_part_that_does_not_fit_the_run_is_one_line(tmp_path, part, change, message):
    saved_run(tmp_path / "run", load(tmp_path, f"{LSTM}\n{REGRESSION}"))
    recipe = load(tmp_path, f"{LSTM}\n{REGRESSION}", change)
    with pytest.raises(ConfigError, match=message) as caught:
        build(starting_from(recipe, tmp_path / "run", part))
    assert len(caught.value.mistakes) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (True, "backbone.pretrained: 'transformer' has no published weights to load; name the"),
        ("empty", "to load, and '{folder}/empty' is no folder of a run; name the folder of a run"),
    ],
)
def test_a_part_that_loads_nothing_itself_asks_for_a_run(tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    value = "true" if source is True else f'"{source}"'
    change = 'name = "transformer"', f'name = "transformer"\npretrained = {value}'
    with pytest.raises(ConfigError) as caught:
        build(load(tmp_path, LSTM, change))
    assert message.format(folder=tmp_path) in str(caught.value)
