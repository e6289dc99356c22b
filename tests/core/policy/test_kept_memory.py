"""Acting on what the backbone keeps, compared with whole windows: resets, long histories."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from core import (
    ActionSpec,
    Backbone,
    Batch,
    ContextSpec,
    Memory,
    PolicyHead,
    TokenGroup,
    VisionEncoder,
)
from core.policy.policy import Policy
from core.testing import checks_for
from plugins.action_tokens.learned import LearnedConfig, LearnedTokens
from plugins.backbones.transformer import Transformer, TransformerConfig
from plugins.heads.discrete import DiscreteConfig, DiscreteHead
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder
from tests.contexts import noise

WIDTH, WINDOW = 16, 5
INSTRUCTIONS = ["stop", "open the drawer", "pick up the red block and put it into the blue bowl"]


class Camera(VisionEncoder):
    """Gives one token for each of the two pixels of a camera."""

    width = WIDTH

    def __init__(self):
        super().__init__()
        self.cameras = ["top"]
        self.project = nn.Linear(3, WIDTH)

    def forward(self, images, text):
        return TokenGroup(self.project(images["top"].flatten(3).movedim(2, 3) / 255.0))


class Recurrent(Backbone):
    """A GRU over the sequence, which carries its state from frame to frame."""

    width = WIDTH
    offers = frozenset({"carry"})
    both_ways = False

    def __init__(self, config):
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.lengths = []

    def forward(self, sequence):
        return self.remember(sequence).tokens

    def remember(self, sequence, past=None):
        self.lengths.append(sequence.tokens.shape[1])
        before = None if past is None else past.carry["gru"].transpose(0, 1).contiguous()
        states, _ = self.gru(sequence.tokens, before)
        last = sequence.frame.shape[1] if sequence.mask is None else sequence.mask.sum(1)
        place = torch.as_tensor(last).expand(len(states)) - 1
        return Memory(
            sequence, states, carry={"gru": states[torch.arange(len(states)), place].unsqueeze(1)}
        )


class TokensHead(PolicyHead):
    """Averages all tokens that a frame may see, so that a wrong mask, frame or column shows."""

    needs = frozenset({"keys_values", "tokens", "hidden_states"})

    def __init__(self, config, *, context, action):
        super().__init__()
        self.shape = (action.horizon, action.dim)
        layers = context.layers
        self.size = layers.depth * layers.key_heads * layers.head_width + 2 * context.width
        self.project = nn.Linear(self.size, action.horizon * action.dim)

    def forward(self, context, generator):
        memory = context.memory
        mask = context.attention_mask(1)[:, 0, :, : memory.tokens.shape[1]]  # (S F L)
        weights = mask.to(memory.tokens.dtype)
        keys = torch.cat(
            [keys.flatten(1, 1).movedim(1, 2).flatten(2) for keys in memory.keys], dim=-1
        )
        everything = torch.cat([keys, memory.tokens, memory.hidden_states[1]], dim=-1)
        mixed = context.unfold(weights @ everything / weights.sum(-1, keepdim=True))
        return self.project(mixed.squeeze(2)).unflatten(-1, self.shape)

    def loss(self, context, batch, generator):
        return {"action": self(context, generator).square().mean()}


def make(
    backbone, head=DiscreteHead, layout="image_text_action", attention="causal", window=WINDOW
) -> Policy:
    torch.manual_seed(0)
    action = ActionSpec(window, horizon=2, dim=2)
    config = LearnedConfig(
        count=2, formulation="interleaved", layout=layout, attention=attention, proprio=True
    )
    spec = ContextSpec(WIDTH, action_tokens=2, layers=backbone.layer_spec)
    policy = Policy(
        Camera(),
        SentencePieceEncoder(SentencePieceConfig(width=WIDTH)),
        {"vision": nn.Identity(), "text": nn.Identity()},
        backbone,
        LearnedTokens(config, width=WIDTH, action=action, proprio_dim=2),
        head(DiscreteConfig(bins=4, mlp=(8,), decode="mean"), context=spec, action=action),
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    return policy.eval()


def transformer(positions="rotary"):
    return Transformer(TransformerConfig(width=WIDTH, depth=2, heads=2, positions=positions))


def frames(rows, steps, seed=1):
    """Return random images (rows steps C Y X) and proprioception (rows steps P) of episodes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (rows, steps, 3, 1, 2), generator=generator, dtype=torch.uint8)
    return images, torch.randn(rows, steps, 2, generator=generator)


def batch_of(policy, images, proprio, instructions) -> Batch:
    ids = [list(policy.text_encoder.tokenize(instruction)) for instruction in instructions]
    longest = max(map(len, ids))
    return Batch(
        images={"top": images},
        instructions=instructions,
        text_ids=torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
        text_mask=torch.tensor([[i < len(row) for i in range(longest)] for row in ids]),
        proprio=proprio,
    )


def expected(policy, images, proprio, instruction, first, last):
    """Return the actions of the last frame of the window first..last, computed as in training."""
    part = slice(first, last + 1)
    batch = batch_of(policy, images[None, part], proprio[None, part], [instruction])
    return policy.predict(batch, noise())[0, -1]


def first_kept(step, window):
    """Return the first frame of the window at a step; a full window drops its older half."""
    first = 0
    for now in range(step + 1):
        if now - first == window:
            first = now - window // 2
    return first


@pytest.mark.parametrize("head", [DiscreteHead, TokensHead])
@pytest.mark.parametrize("layout", ["image_text_action", "text_image_action"])
@pytest.mark.parametrize("attention", ["causal", "prefix", "bidirectional"])
def test_acting_on_kept_layers_equals_windows_computed_anew(head, layout, attention):
    policy = make(transformer(), head, layout, attention)
    images, proprio = frames(3, 13)
    state = policy.initial_state(torch.arange(3))
    with torch.no_grad():
        for t in range(13):
            batch = batch_of(policy, images[:, t : t + 1], proprio[:, t : t + 1], INSTRUCTIONS)
            actions, state = policy.act(batch, state)
            for row, instruction in enumerate(INSTRUCTIONS):
                whole = expected(
                    policy, images[row], proprio[row], instruction, first_kept(t, WINDOW), t
                )
                torch.testing.assert_close(actions[row], whole, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    resets=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=12, max_size=12),
    choices=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    window=st.integers(2, 5),
)
def test_rows_can_be_reset_at_any_time_with_another_instruction(resets, choices, window):
    policy = make(transformer("learned"), attention="prefix", window=window)
    images, proprio = frames(3, 12)
    state = policy.initial_state(torch.arange(3))
    starts, instructions = [0, 0, 0], [INSTRUCTIONS[0]] * 3
    with torch.no_grad():
        for t in range(12):
            state = policy.reset(state, torch.tensor(resets[t]), torch.full((3,), t))
            for row in range(3):
                if resets[t][row]:
                    starts[row], instructions[row] = t, INSTRUCTIONS[choices[t]]
            batch = batch_of(policy, images[:, t : t + 1], proprio[:, t : t + 1], instructions)
            actions, state = policy.act(batch, state)
            for row in range(3):
                first = starts[row] + first_kept(t - starts[row], window)
                whole = expected(policy, images[row], proprio[row], instructions[row], first, t)
                torch.testing.assert_close(actions[row], whole, atol=1e-5, rtol=1e-5)


def test_a_frame_costs_no_more_than_its_own_tokens():
    backbone, lengths = transformer(), []
    policy = make(backbone)
    remember = backbone.remember

    def remember_and_count(sequence, past=None):
        lengths.append(sequence.tokens.numel() // WIDTH)
        return remember(sequence, past)

    backbone.remember = remember_and_count
    images, proprio = frames(1, 40)
    state = policy.initial_state(torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        for t in range(40):
            batch = batch_of(policy, images[:, t : t + 1], proprio[:, t : t + 1], INSTRUCTIONS[:1])
            _, state = policy.act(batch, state)
    per_frame = 5  # two of vision, one of proprioception, two action tokens
    whole_windows = 40 * WINDOW * per_frame
    assert sum(lengths) < 0.6 * whole_windows
    assert lengths.count(per_frame) >= 39


def test_a_recurrent_backbone_acts_in_constant_time_and_remembers_everything():
    backbone = Recurrent(None)
    policy = make(backbone)
    images, proprio = frames(3, 12)
    batch = batch_of(policy, images, proprio, INSTRUCTIONS)
    with torch.no_grad():
        policy.action_tokens.context = 12
        whole = policy.predict(batch, noise())
        policy.action_tokens.context = WINDOW
        backbone.lengths.clear()
        state = policy.initial_state(torch.arange(3))
        for t in range(12):
            if t == 7:
                state = policy.reset(state, torch.tensor([False, True, False]), torch.arange(3))
            frame = replace(
                batch, images={"top": images[:, t : t + 1]}, proprio=proprio[:, t : t + 1]
            )
            actions, state = policy.act(frame, state)
            rows = [0, 2] if t >= 7 else [0, 1, 2]  # those that were not reset
            torch.testing.assert_close(actions[rows], whole[rows, t], atol=1e-5, rtol=1e-5)
            if t >= 7:
                fresh = expected(policy, images[1], proprio[1], INSTRUCTIONS[1], 7, t)
                torch.testing.assert_close(actions[1], fresh, atol=1e-5, rtol=1e-5)
    assert set(backbone.lengths[1:7]) == {5}


@pytest.mark.parametrize("check", checks_for("backbone", Recurrent, None), ids=str)
def test_a_recurrent_backbone_keeps_the_contract(check):
    check()


def test_no_more_is_kept_than_the_head_needs():
    images, proprio = frames(1, 1)
    kept = {}
    for head in (DiscreteHead, TokensHead):
        policy = make(transformer(), head)
        batch = batch_of(policy, images, proprio, INSTRUCTIONS[:1])
        with torch.no_grad():
            _, state = policy.act(batch, policy.initial_state(torch.arange(1)))
        kept[head] = set(state.memory)
    assert kept[DiscreteHead] == {"tokens", "keys", "values"}
    assert kept[TokensHead] == {"tokens", "keys", "values", "hidden_states"}
