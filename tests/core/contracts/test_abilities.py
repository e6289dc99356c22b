"""An ability is a matter of attributes: which parts have it, and which lack one."""

import torch
from torch import nn

from core import HasBlocks, HasOutputLayer, Loadable, Publishable


class Speaks(nn.Module):
    """Has an output layer, and nothing else."""

    vocabulary = 5

    def embed(self, ids):
        return torch.zeros(*ids.shape, 2)

    def logits(self, hidden):
        return torch.zeros(*hidden.shape[:-1], self.vocabulary)


class Publishes(nn.Module):
    """Can be loaded and published."""

    source = None

    def load_pretrained(self, weights):
        pass

    def publish(self):
        return {}

    def describe(self):
        return {}


def test_blocks_make_a_part_with_blocks():
    part = nn.Module()
    assert not isinstance(part, HasBlocks)
    part.blocks = nn.ModuleList([nn.Linear(2, 2)])
    assert isinstance(part, HasBlocks)


def test_an_output_layer_is_three_attributes():
    assert isinstance(Speaks(), HasOutputLayer)

    class WithoutVocabulary(nn.Module):
        embed, logits = Speaks.embed, Speaks.logits

    assert not isinstance(WithoutVocabulary(), HasOutputLayer)


def test_a_source_of_none_is_enough_to_load_but_not_its_absence():
    part = Publishes()
    assert isinstance(part, Loadable)
    assert isinstance(part, Publishable)

    class WithoutSource(nn.Module):
        load_pretrained = Publishes.load_pretrained

    assert not isinstance(WithoutSource(), Loadable)
    assert not isinstance(WithoutSource(), Publishable)
