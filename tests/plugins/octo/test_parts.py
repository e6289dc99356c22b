"""Octo's image tokens and its sequence: their contracts, who sees whom, and mistakes."""

import pytest
import torch

from core import ActionSpec, ConfigError, TokenGroup, TokenKind, attention_mask
from core.testing import Setup, checks_for
from plugins.policies.octo.action_tokens import OctoTokens, OctoTokensConfig
from plugins.policies.octo.vision import OctoVision, OctoVisionConfig, StandardizedConv
from tests.contexts import noise

VISION = OctoVisionConfig(image_size=16, channels=(32, 32), width=12)
CHECKS = [
    pytest.param(check, id=f"{kind}-{i}-{check}")
    for kind, build, configs in (
        ("vision_encoder", OctoVision, [VISION]),
        ("action_tokens", OctoTokens, [OctoTokensConfig(), OctoTokensConfig(2, False)]),
    )
    for i, config in enumerate(configs)
    for check in checks_for(kind, build, config, Setup())
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def make(config=None, width=1, window=2):
    action = ActionSpec(window=window, horizon=2, dim=2)
    return OctoTokens(config or OctoTokensConfig(), width=width, action=action)


def lay_out(tokens, *, images=2, words=2, window=2, masked_word=False):
    """A sequence in which an image's tokens are 1, words 2, and what is learned 0."""
    mask = None
    if masked_word:
        mask = torch.arange(words) < words - 1
        mask = mask[None]
    for parameter in tokens.parameters():
        torch.nn.init.zeros_(parameter)
    vision = TokenGroup(torch.ones(1, window, images, 1))
    text = TokenGroup(torch.full((1, words, 1), 2.0), mask)
    with torch.no_grad():
        return tokens.layout(vision, text, None, None, noise())


NAMES = {TokenKind.TEXT: "x", TokenKind.VISION: "i", TokenKind.ACTION: "a"}


def drawn(sequence):
    """Write a sequence as the class docstring draws it."""
    pairs = zip(sequence.kind[0].tolist(), sequence.frame[0].tolist(), strict=True)
    return " ".join(f"{NAMES[TokenKind(kind)]}{frame}" for kind, frame in pairs)


def test_sequences_are_as_drawn():
    sequence = lay_out(make())
    assert drawn(sequence) == "x0 x0 i0 i0 x0 x0 a0 i1 i1 x1 x1 a1"
    assert sequence.readout.tolist() == [[[6], [11]]]
    values = {TokenKind.TEXT: 2.0, TokenKind.VISION: 1.0, TokenKind.ACTION: 0.0}
    assert sequence.tokens[0, :, 0].tolist() == [values[k] for k in sequence.kind[0].tolist()]
    alone = lay_out(make(OctoTokensConfig(count=2, repeat_text=False)))
    assert drawn(alone) == "x0 x0 i0 i0 a0 a0 i1 i1 a1 a1"
    assert alone.readout.tolist() == [[[4, 5], [8, 9]]]


@pytest.mark.parametrize("masked_word", [False, True])
def test_readouts_read_and_are_not_read(masked_word):
    sequence = lay_out(make(), masked_word=masked_word)
    mask = attention_mask(sequence)[0, 0]
    kind, frame, block = sequence.kind[0], sequence.frame[0], sequence.block[0]
    real = torch.ones(len(kind)).bool() if sequence.mask is None else sequence.mask[0]
    words = 1 if masked_word else 2
    for i in real.nonzero().flatten().tolist():
        for j in range(len(kind)):
            is_first = [position < words for position in (i, j)]
            if not real[j] or frame[j] > frame[i]:
                expected = False
            elif is_first[0]:
                expected = is_first[1]
            else:
                expected = kind[j] != TokenKind.ACTION or kind[i] == TokenKind.ACTION
            assert bool(mask[i, j]) == expected, (i, j)
    assert sorted(set(block.tolist())) == [0, 1, 2]


def test_every_place_has_a_position_of_its_own():
    tokens = make(OctoTokensConfig(text_tokens=2, image_tokens=2), width=8)
    vision, text = TokenGroup(torch.zeros(1, 2, 2, 8)), TokenGroup(torch.zeros(1, 2, 8))
    sequence = tokens.layout(vision, text, None, None, noise())
    rows = {tuple(row) for row in sequence.tokens[0].tolist()}
    assert len(rows) == 2 + 4 + 2  # the words in frames have those of the words at the beginning
    assert torch.equal(sequence.tokens[0, :2], sequence.tokens[0, 4:6])


@pytest.mark.parametrize(("key", "counts"), [("text_tokens", (2, 5)), ("image_tokens", (5, 2))])
def test_more_tokens_than_positions_are_refused(key, counts):
    tokens = make(OctoTokensConfig(text_tokens=4, image_tokens=4))
    images, words = counts
    with pytest.raises(ConfigError, match=rf"action_tokens\.{key}: there are positions for 4, and"):
        lay_out(tokens, images=images, words=words)


def test_patches_are_tokens_with_row_and_column():
    encoder = OctoVision(VISION, cameras={"wrist": (3, 20, 30), "static": (3, 16, 16)})
    images = {
        name: torch.randint(256, (1, 2, *shape), dtype=torch.uint8)
        for name, shape in {"wrist": (3, 20, 30), "static": (3, 16, 16)}.items()
    }
    group = encoder(images, TokenGroup(torch.zeros(1, 0, 0)))
    assert group.tokens.shape == (1, 2, 32, 12)
    assert group.grid[:5].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]]


def test_kernels_are_standardised():
    convolution = StandardizedConv(3, 4, 3, bias=False)
    expected = convolution(torch.ones(1, 3, 5, 5))
    with torch.no_grad():
        convolution.weight.mul_(3).add_(1)
    torch.testing.assert_close(convolution(torch.ones(1, 3, 5, 5)), expected, rtol=1e-3, atol=1e-3)
    assert expected.abs().max() < 1e-4  # a kernel of mean 0 answers a constant image with 0


def test_stems_follow_their_cameras_into_another_run():
    former = OctoVision(VISION, cameras=dict.fromkeys(("static", "wrist"), (3, 16, 16)))
    encoder = OctoVision(VISION, cameras=dict.fromkeys(("front", "wrist"), (3, 16, 16)))
    fresh = encoder.stems["front"][0].weight.clone()
    encoder.load_state_dict(encoder.adapt(former, former.state_dict()))
    assert torch.equal(encoder.stems["wrist"][0].weight, former.stems["wrist"][0].weight)
    assert torch.equal(encoder.stems["front"][0].weight, fresh)


def test_positions_follow_into_a_longer_window():
    former, tokens = make(window=2), make(OctoTokensConfig(text_tokens=20), window=3)
    tokens.load_state_dict(tokens.adapt(former, former.state_dict()))
    for name, positions in former.state_dict().items():
        assert torch.equal(tokens.state_dict()[name][: len(positions)], positions)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"channels": (32, 40)}, "must be one or more multiples of 32"),
        ({"channels": ()}, "must be one or more multiples of 32"),
        ({"image_size": 100}, "must be a multiple of 16"),
    ],
)
def test_mistakes(keys, message):
    with pytest.raises(ValueError, match=message):
        OctoVisionConfig(**keys)
