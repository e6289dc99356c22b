"""Tokens one by one on keys and values in memory, against one plain pass over everything."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core import Batch, Generator, TokenKind, TokenSequence, masked_mean
from core.policy.policy import Policy
from tests.strangers import batch_of, build, perturbed

HEAD = 'name = "autoregressive"\nbins = 16'
# of an action chunk
TOKENS = 3 * 4
CASES = list(product(("policy_head", "interleaved"), ("causal", "prefix"), (1, 3)))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}, {case[1]}, window {case[2]}")
def case(request, tmp_path) -> tuple[Policy, Batch]:
    """A policy with perturbed weights, and a batch with padded instructions."""
    formulation, attention, window = request.param
    tokens = [f"action_tokens.formulation={formulation}", f"action_tokens.attention={attention}"]
    policy = perturbed(build(tmp_path, HEAD, *tokens, window=window))
    return policy, batch_of(policy, window)


def observations(policy: Policy, batch: Batch) -> TokenSequence:
    """Return the sequences that the backbone reads before the head adds tokens."""
    generator = Generator.shared((0,), torch.device("cpu"))
    text = policy.encode_text(batch.text_ids, batch.text_mask)
    images = policy.encode_images(batch, text, generator)
    return policy.action_tokens.layout(
        images.projected, text.projected, batch.proprio, None, generator
    )


def plain_pass(
    policy: Policy, observed: TokenSequence, added: Tensor, blocks: Tensor | None = None
) -> Tensor:
    """Return the hidden states (B T n D) of added tokens (B T n D), computed without memory.

    One frame of one sample at a time, in one pass over its past and the added tokens: no padding,
    no keys and values from before, no private tokens. blocks (n): of the added tokens; default:
    causal.
    """
    batch, window, count, _ = added.shape
    hidden = torch.empty_like(added)
    for b, t in product(range(batch), range(window)):
        row, frame = (b, t) if len(observed.tokens) == batch else (b * window + t, 0)
        past = observed.frame[row] <= frame
        if observed.mask is not None:
            past = past & observed.mask[row]
        block = torch.arange(len(past)) if observed.block is None else observed.block[row]
        block = torch.cat([block[past], 1000 + (torch.arange(count) if blocks is None else blocks)])
        zeros = torch.zeros_like(block)[None]
        sequence = TokenSequence(
            tokens=torch.cat([observed.tokens[row, past], added[b, t]])[None],
            mask=None,
            frame=zeros,
            kind=zeros + int(TokenKind.OTHER),
            readout=torch.arange(len(block))[None, None, -count:],
            block=block[None],
        )
        hidden[b, t] = policy.backbone.read(sequence)[0, 0]
    return hidden


@torch.no_grad()
def test_decoding_on_memory_gives_what_a_fresh_pass_gives_for_every_token(case):
    policy, batch = case
    head, observed = policy.policy_head, observations(policy, batch)
    generator = Generator.shared((0,), torch.device("cpu"))
    context = policy.context(batch, generator)
    actions = head(context, generator)
    tokens = torch.zeros(*context.frame.shape, 0, dtype=torch.int64)
    for n in range(TOKENS):
        inputs = head.inputs(tokens)
        cached, context = context.extend(inputs[:, :, -1:])
        fresh = plain_pass(policy, observed, inputs)[:, :, -1:]
        torch.testing.assert_close(cached, fresh, rtol=1e-5, atol=1e-5)
        received, expected = head.logits(cached, n), head.logits(fresh, n)
        torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(received.argmax(dim=-1), expected.argmax(dim=-1))
        tokens = torch.cat([tokens, expected.argmax(dim=-1)], dim=-1)
    index = tokens.unflatten(-1, (3, 4))
    expected = torch.where(head.binary, index - 16, (2 * index + 1) / 16 - 1)
    torch.testing.assert_close(actions, expected, rtol=1e-5, atol=1e-5)
    assert len(tokens.unique()) > 3  # a policy that always writes one token would prove little


@torch.no_grad()
def test_groups_of_tokens_see_all_that_was_added_before(case):
    """Add three tokens that see each other, then two causal ones, then one."""
    policy, batch = case
    context = policy.context(batch, Generator.shared((0,), torch.device("cpu")))
    added = torch.randn(
        *context.frame.shape, 6, policy.backbone.width, generator=torch.Generator().manual_seed(3)
    )
    together = torch.zeros(3, dtype=torch.int64)
    first, context = context.extend(added[:, :, :3], together)
    second, context = context.extend(added[:, :, 3:5])
    third, _ = context.extend(added[:, :, 5:])
    received = torch.cat([first, second, third], dim=2)
    blocks = torch.tensor([0, 0, 0, 1, 2, 3])
    expected = plain_pass(policy, observations(policy, batch), added, blocks)
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)


def test_teacher_forcing_is_one_causal_pass_over_observation_and_targets(case):
    policy, batch = case
    head = policy.policy_head
    generator = Generator.shared((0,), torch.device("cpu"))
    received = policy(batch, generator).losses["token"]
    gradient = torch.autograd.grad(received, list(policy.backbone.parameters()))
    target = head.target(batch)
    hidden = plain_pass(policy, observations(policy, batch), head.inputs(target[..., :-1]))
    entropy = F.cross_entropy(
        head.logits(hidden, 0).flatten(0, 2), target.flatten(), reduction="none"
    )
    expected = masked_mean(entropy, batch.action_mask.flatten())
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)
    expected_gradient = torch.autograd.grad(expected, list(policy.backbone.parameters()))
    for pair in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


def test_acting_frame_by_frame_writes_what_the_window_writes(case):
    policy, batch = case
    with torch.no_grad():
        window = policy.predict(batch, Generator.shared((0,), torch.device("cpu")))
        state = policy.initial_state(torch.arange(len(batch.text_ids)))
        for t in range(window.shape[1]):
            images = {name: x[:, t : t + 1] for name, x in batch.images.items()}
            actions, state = policy.act(
                replace(batch, images=images, proprio=batch.proprio[:, t : t + 1]), state
            )
            torch.testing.assert_close(actions, window[:, t], rtol=1e-5, atol=1e-5)
