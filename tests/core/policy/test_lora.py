"""Adapters: all of them train, and merging them changes no output."""

import pytest
import torch

from core.contracts.batch import TokenGroup, TokenSequence
from core.contracts.tokens import full_mask
from core.errors import ConfigError
from core.policy.lora import add_adapters, has_adapters, merge_adapters, rank_and_alpha
from core.registry.part_settings import PartSettings
from plugins.backbones.transformer import Transformer, TransformerConfig
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder

LORA = PartSettings(train="lora", lora_rank=3, lora_alpha=5.0)


def transformer(settings=LORA):
    torch.manual_seed(0)
    part = Transformer(TransformerConfig(width=16, depth=2, heads=2)).eval()
    add_adapters(part, settings, "backbone")
    for name, parameter in part.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter)  # they start at zero
    return part


def run(part):
    tokens = torch.randn(2, 5, part.width, generator=torch.Generator().manual_seed(1))
    frame = torch.zeros(2, 5, dtype=torch.int64)
    sequence = TokenSequence(
        tokens, full_mask(TokenGroup(tokens)), frame, frame > 0, frame[:, None, :1]
    )
    return part(sequence)


def test_only_adapters_train_and_all_of_them_do():
    part = transformer()
    run(part).square().sum().backward()
    trained = {name for name, p in part.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {name for name, _ in part.named_parameters() if ".lora_" in name}
    assert len(trained) == 2 * 4 * 2


def test_merging_changes_no_output():
    part = transformer()
    with torch.no_grad():
        before = run(part)
        assert has_adapters(part)
        merge_adapters(part)
        assert not has_adapters(part)
        torch.testing.assert_close(run(part), before, atol=1e-5, rtol=1e-5)
    assert (
        part.state_dict().keys()
        == Transformer(TransformerConfig(width=16, depth=2, heads=2)).state_dict().keys()
    )


def test_targets_are_chosen_by_their_last_word():
    part = transformer(PartSettings(train="lora", lora_targets=("qkv",)))
    adapted = {
        name.partition(".lora_")[0] for name, _ in part.named_parameters() if ".lora_" in name
    }
    assert adapted == {"blocks.0.attention.qkv", "blocks.1.attention.qkv"}


def test_other_weights_train_beside_adapters_and_merging_changes_no_output():
    settings = PartSettings(
        train="lora", pretrained=False, lora_rank=3, lora_train=("norm*", "*_norm")
    )
    part = transformer(settings)
    run(part).square().sum().backward()
    trained = {name for name, p in part.named_parameters() if p.grad is not None and p.grad.any()}
    norms = {name for name, _ in part.named_parameters() if "norm" in name}
    assert len(norms) == 2 * 2 + 1
    assert trained == norms | {name for name, _ in part.named_parameters() if ".lora_" in name}
    with torch.no_grad():
        before = run(part)
        merge_adapters(part)
        torch.testing.assert_close(run(part), before, atol=1e-5, rtol=1e-5)


def test_other_weights_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match=r"backbone\.lora_train: no weight is called 'batchnorm'"):
        transformer(PartSettings(train="lora", lora_train=("batchnorm",)))


def test_layers_whose_weights_torch_reads_past_them_get_none():
    """nn.MultiheadAttention never calls its output projection: an adapter there would not train."""
    torch.manual_seed(0)
    part = SentencePieceEncoder(SentencePieceConfig(width=16, layers=1))
    add_adapters(part, LORA, "text_encoder")
    part(torch.tensor([part.tokenize("open the drawer")]), None).tokens.square().sum().backward()
    assert all(p.grad is not None for p in part.parameters() if p.requires_grad)


def test_a_part_without_linear_layers_is_refused():
    part = SentencePieceEncoder(SentencePieceConfig(width=16))
    with pytest.raises(ConfigError, match="this part has none"):
        add_adapters(part, LORA, "text_encoder")


def test_alpha_is_what_the_recipe_says():
    """Computing it from the scale would round it: 0.9 / 6 * 6 is not 0.9."""
    settings = PartSettings(train="lora", lora_rank=6, lora_alpha=0.9)
    assert rank_and_alpha(settings) == (6, 0.9)
    assert rank_and_alpha(PartSettings(train="lora", lora_rank=4)) == (4, 8)
