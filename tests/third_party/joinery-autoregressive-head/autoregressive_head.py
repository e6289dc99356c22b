"""A policy head that writes an action chunk token by token, as RT-2 and OpenVLA do."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from core import ConfigError, PolicyHead, hookimpl, masked_mean


@dataclass(frozen=True)
class AutoregressiveHeadConfig:
    """Each number of the chunk is a token, which the backbone reads before it predicts the next."""

    bins: int = 256
    """equal bins over [-1, 1], one token each; binary dimensions share two further tokens."""


class AutoregressiveHead(PolicyHead):
    """Decodes greedily; each number depends on the observation and on all numbers before it.

    Raises ConfigError if continuous dimensions are not limited to [-1, 1].
    """

    needs = frozenset({"extend"})

    def __init__(self, config, *, context, action):
        super().__init__()
        if action.continuous and not action.bounded:
            raise ConfigError(
                "policy_head.name: bins need actions in [-1, 1]; "
                'set action.normalization = "min_max"'
            )
        self.bins, self.shape = config.bins, (action.horizon, action.dim)
        self.tokens, self.classes = action.horizon * action.dim, config.bins + 2
        # One for each token; the first is also the input from which the first token is predicted.
        self.place = nn.Parameter(0.02 * torch.randn(self.tokens, context.width))
        self.embedding = nn.Embedding(self.classes, context.width)
        self.output = nn.Linear(context.width, self.classes)
        binary = torch.tensor([i in action.binary for i in range(action.dim)])
        self.register_buffer("binary", binary, persistent=False)

    def forward(self, context, generator):  # -> (B T H A)
        tokens = context.frame.new_zeros(*context.frame.shape, 0)
        for _ in range(self.tokens):
            hidden, context = context.extend(self.inputs(tokens)[:, :, -1:])
            next_token = self.logits(hidden, tokens.shape[2]).argmax(dim=-1)
            tokens = torch.cat([tokens, next_token], dim=-1)
        tokens = tokens.unflatten(-1, self.shape)
        bin_centre = (2 * tokens + 1) / self.bins - 1
        return torch.where(self.binary, tokens - self.bins, bin_centre)

    def loss(self, context, batch, generator):
        target = self.target(batch)
        # Teacher forcing: all tokens at once, and each sees those before it.
        hidden, _ = context.extend(self.inputs(target[..., :-1]))
        entropy = F.cross_entropy(
            self.logits(hidden, 0).flatten(0, 2), target.flatten(), reduction="none"
        )
        return {"token": masked_mean(entropy, batch.action_mask.flatten())}

    def target(self, batch):  # -> (B T H*A) int64
        # Masked actions hold anything: later tokens must not read them.
        actions = batch.actions.masked_fill(~batch.action_mask, 0)
        bins = ((actions + 1) * (self.bins / 2)).floor().clamp(0, self.bins - 1)
        return torch.where(self.binary, self.bins + actions.round(), bins).long().flatten(2)

    def inputs(self, tokens):  # (B T n) int64 -> (B T n+1 D): inputs that predict tokens 0 to n
        embedded = F.pad(self.embedding(tokens), (0, 0, 1, 0))
        return embedded + self.place[: embedded.shape[2]]

    def logits(self, hidden, first):  # (B T n D) for tokens from `first` on -> (B T n classes)
        binary = self.binary.repeat(self.shape[0])[first : first + hidden.shape[2], None]
        is_bin = torch.arange(self.classes, device=binary.device) < self.bins
        return self.output(hidden).float().masked_fill(is_bin == binary, -torch.inf)


@hookimpl
def register_policy_heads(register):
    register("autoregressive", AutoregressiveHeadConfig, AutoregressiveHead)
