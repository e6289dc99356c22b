"""The needs of a policy head's class, compared with what a backbone offers."""

import pytest
from torch import nn

from core import Backbone, PolicyHead
from core.contracts.needs import declared_needs, unmet_needs


class Layered(Backbone):
    offers = frozenset({"keys_values", "hidden_states", "extend"})


class Plain(Backbone):
    """Offers no layers."""


class Unmixed(Backbone):
    mixes = False


def head_class(**attributes) -> type[PolicyHead]:
    return type("Head", (PolicyHead,), attributes)


def test_a_class_declares_its_needs():
    assert declared_needs(head_class()) == frozenset()
    assert declared_needs(head_class(needs={"tokens"})) == {"tokens"}


def test_needs_that_a_class_computes_are_not_guessed():
    assert declared_needs(head_class(needs=property(lambda self: frozenset()))) is None
    assert declared_needs(lambda config: nn.Identity()) is None


@pytest.mark.parametrize("backbone", [Layered, Plain])
@pytest.mark.parametrize("needs", [set(), {"tokens"}, {"vision", "proprio"}])
def test_needs_that_any_backbone_meets(backbone, needs):
    assert not list(unmet_needs(frozenset(needs), False, backbone))


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ({"keys_values"}, "needs the keys and values of every layer, and this backbone does not"),
        ({"hidden_states"}, "needs the hidden states of every layer, and this backbone does not"),
        ({"extend"}, "needs to run further tokens through the backbone, and this backbone does"),
    ],
)
def test_layers_are_needed_of_a_backbone_that_offers_them(needs, reason):
    assert not list(unmet_needs(frozenset(needs), False, Layered))
    (received,) = unmet_needs(frozenset(needs), False, Plain)
    assert received.startswith(reason)


def test_every_unmet_need_is_reported_with_the_obstacle():
    class Hindered(Plain):
        obstacle = "its attention is fused"

    first, second = unmet_needs(frozenset({"keys_values", "extend"}), False, Hindered)
    assert "to run further tokens" in first
    assert "the keys and values" in second
    assert first.endswith("(its attention is fused); choose another backbone or head")
    assert second.endswith("(its attention is fused); choose another backbone or head")


def test_a_misspelled_need_is_reported_with_those_that_there_are():
    (reason,) = unmet_needs(frozenset({"key_values"}), False, Layered)
    assert reason.startswith(
        "needs key_values, which nothing offers; there are tokens, keys_values"
    )


@pytest.mark.parametrize(("need", "refused"), [("extend", 1), ("logits", 1), ("keys_values", 0)])
def test_a_head_that_runs_other_parts_cannot_be_insulated(need, refused):
    reasons = list(unmet_needs(frozenset({need}), True, Layered))
    assert len(reasons) == refused
    assert all(reason.endswith("drop insulate") for reason in reasons)


def test_action_tokens_say_nothing_behind_a_backbone_that_mixes_nothing():
    (reason,) = unmet_needs(frozenset(), False, Unmixed)
    assert reason.startswith("reads action tokens, and in this backbone they see no other tokens")
    assert not list(unmet_needs(frozenset({"vision"}), False, Unmixed))
