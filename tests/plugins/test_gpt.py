"""The GPT head: its blocks against transformers' GPT-2, its memory against the window, its size."""

from dataclasses import replace

import pytest
import torch

from core import ActionSpec, ConfigError, ContextSpec, import_library
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, windows
from plugins.heads.gpt import GPTConfig, GPTHead
from tests.contexts import context_from, noise
from tests.one_batch import assert_overfits_one_batch
from tests.two_modes import assert_two_modes

SMALL = GPTConfig(layers=2, heads=2, hidden_size=16, mlp=(12,), dropout=0.0)
ACTION = ActionSpec(window=3, horizon=4, dim=5, binary=(1, 3))
SETTINGS = [
    (SMALL, Setup(action=ACTION)),
    (replace(SMALL, dropout=0.3, loss="l1"), Setup(action=replace(ACTION, window=2), tokens=1)),
    (replace(SMALL, tanh=False, mlp=()), Setup(action=replace(ACTION, binary=(), bounded=False))),
    (replace(SMALL, layers=1), Setup(action=replace(ACTION, window=1))),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("policy_head", GPTHead, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def test_one_batch_is_overfitted():
    assert_overfits_one_batch(GPTHead, replace(SMALL, hidden_size=32, mlp=(32,)))


def test_a_regression_stands_between_two_modes():
    with pytest.raises(AssertionError, match="in between"):
        assert_two_modes(GPTHead, SMALL, steps=100)


def make(config=SMALL, action=ACTION, width=6):
    torch.manual_seed(0)
    return GPTHead(config, context=ContextSpec(width, 2), action=action).eval()


@torch.no_grad()
def test_the_blocks_are_those_of_gpt2():
    """With the same weights, the stream before the two MLPs equals that of transformers' GPT-2."""
    pytest.importorskip("transformers", reason="needs transformers (pip install -e '.[test]')")
    transformers = import_library("transformers")  # where torchvision does not fit torch, too
    head = make()
    for number, weight in enumerate(head.parameters()):  # biases and norms, too
        weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 3, "vocab_size": 1}
    sizes |= {"bos_token_id": None, "eos_token_id": None}
    config = transformers.GPT2Config(activation_function="gelu", **sizes)
    gpt2 = transformers.GPT2Model(config).eval()
    gpt2.load_state_dict({"wte.weight": torch.zeros(1, 16), **names_of_gpt2(head)})
    features = torch.randn(2, 3, 6)
    expected = gpt2(inputs_embeds=head.input(features)).last_hidden_state
    received = []
    head.norm.register_forward_hook(lambda norm, inputs, output: received.append(output))
    head(context_from(features[:, :, None]), noise())
    torch.testing.assert_close(received[0], expected, rtol=1e-5, atol=1e-5)


def names_of_gpt2(head):
    """The head's weights by the names of GPT-2, whose linear layers are transposed."""
    names = {
        "attention_norm": "ln_1",
        "qkv": "attn.c_attn",
        "output": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.0": "mlp.c_fc",
        "mlp.2": "mlp.c_proj",
    }
    weights = {"wpe.weight": head.positions}
    for kind in ("weight", "bias"):
        weights[f"ln_f.{kind}"] = getattr(head.norm, kind)
    for i, block in enumerate(head.blocks):
        for name, weight in block.named_parameters():
            layer, _, kind = name.rpartition(".")
            weights[f"h.{i}.{names[layer]}.{kind}"] = weight.T if weight.ndim == 2 else weight
    return weights


def test_acting_forgets_what_lies_before_the_window():
    head, readout = make(), torch.randn(2, 7, 2, 6)
    state = head.initial_state(2)
    for t in range(7):
        actions, state = head.act(context_from(readout[:, t : t + 1]), state, noise())
        assert state["count"].tolist() == [min(t + 1, 3)] * 2
        window = head(context_from(readout[:, max(0, t - 2) : t + 1]), noise())
        torch.testing.assert_close(actions, window[:, -1])


def test_a_frame_sees_where_it_stands():
    """The same readout three times gives three different actions: positions are learned."""
    head = make()
    torch.nn.init.normal_(head.positions)
    actions = head(context_from(torch.randn(1, 1, 2, 6).expand(1, 3, 2, 6)), noise())
    assert not torch.isclose(actions[:, 0], actions[:, 1]).all()


def test_dropout_acts_in_training_alone():
    head, context = make(replace(SMALL, dropout=0.5)), context_from(torch.randn(1, 3, 2, 6))
    assert torch.equal(head(context, noise()), head(context, noise()))
    head.train()
    assert not torch.equal(head(context, noise()), head(context, noise()))


def test_size_is_that_of_robovlms():
    """Eight blocks of GPT-2 of width 1024 with eight positions, and the two MLPs."""
    action = ActionSpec(window=8, horizon=10, dim=7, binary=(6,))
    with torch.device("meta"):
        head = GPTHead(GPTConfig(), context=ContextSpec(2048, 1), action=action)
    block = 12 * 1024**2 + 13 * 1024
    gpt = 8 * block + 8 * 1024 + 2 * 1024
    mlps = sum(
        a * b + b
        for outputs in (60, 10)
        for a, b in [(1024, 1024), (1024, 512), (512, 256), (256, outputs)]
    )
    assert sum(p.numel() for p in head.parameters()) == 2048 * 1024 + 1024 + gpt + mlps


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads = 3 does not divide hidden_size = 16"):
        replace(SMALL, heads=3)


def test_tanh_refuses_unbounded_actions():
    with pytest.raises(ConfigError, match=r"policy_head\.tanh.*action\.normalization"):
        make(action=replace(ACTION, bounded=False))


def test_loss_without_actions_says_so():
    given = Setup(action=ACTION, width=6)
    with pytest.raises(ValueError, match=r"batch\.actions"):
        make().loss(
            context_of(given, windows(given)),
            replace(stand_in.batch(given), actions=None),
            noise(),
        )
