"""A policy head that writes each action chunk as tokens, one after another, as RT-2 and OpenVLA do."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from core import ConfigError, PolicyHead, hookimpl, masked_mean


@dataclass(frozen=True)
class AutoregressiveHeadConfig:
    """Every number of the chunk is a token that the backbone reads before it gives the next."""

    bins: int = 256
    """equal bins over [-1, 1], one token each; a binary dimension has two tokens of its own."""


class AutoregressiveHead(PolicyHead):
    """Decodes greedily; every number depends on the observation and all numbers before it.

    Raises ConfigError where continuous dimensions leave [-1, 1].
    """

    needs = frozenset({"extend"})

    def __init__(self, config, *, context, action):
        super().__init__()
        if action.continuous and not action.bounded:
            raise ConfigError(
                'policy_head.name: bins need actions in [-1, 1]; set action.normalization = "min_max"'
            )
        self.bins, self.shape = config.bins, (action.horizon, action.dim)
        self.tokens, self.classes = action.horizon * action.dim, config.bins + 2
        self.place = nn.Parameter(
            0.02 * torch.randn(self.tokens, context.width)
        )  # the first is where writing starts
        self.embedding = nn.Embedding(self.classes, context.width)
        self.output = nn.Linear(context.width, self.classes)
        binary = torch.tensor([i in action.binary for i in range(action.dim)])
        self.register_buffer("binary", binary, persistent=False)

    def forward(self, context, generator):  # -> (B T H A)
        written = torch.zeros(
            *context.frame.shape, 0, dtype=torch.int64, device=context.frame.device
        )
        for _ in range(self.tokens):
            hidden, context = context.extend(self.inputs(written)[:, :, -1:])
            index = self.logits(hidden, written.shape[2]).argmax(dim=-1)
            written = torch.cat([written, index], dim=-1)
        written = written.unflatten(-1, self.shape)
        centre = (2 * written + 1) / self.bins - 1
        return torch.where(self.binary, written - self.bins, centre)

    def loss(self, context, batch, generator):
        target = self.target(batch)
        hidden, _ = context.extend(
            self.inputs(target[..., :-1])
        )  # causal: all tokens at once, each from those before
        entropy = F.cross_entropy(
            self.logits(hidden, 0).flatten(0, 2), target.flatten(), reduction="none"
        )
        return {"token": masked_mean(entropy, batch.action_mask.flatten())}

    def target(self, batch):  # -> (B T H*A) int64
        actions = batch.actions.masked_fill(
            ~batch.action_mask, 0
        )  # later tokens must not read what is masked
        bins = ((actions + 1) * (self.bins / 2)).floor().clamp(0, self.bins - 1)
        return torch.where(self.binary, self.bins + actions.round(), bins).long().flatten(2)

    def inputs(
        self, written
    ):  # (B T n) int64 -> (B T n+1 D): what the backbone reads to write the next
        before = F.pad(self.embedding(written), (0, 0, 1, 0))
        return before + self.place[: before.shape[2]]

    def logits(self, hidden, first):  # (B T n D) of the tokens from `first` on -> (B T n classes)
        binary = self.binary.repeat(self.shape[0])[first : first + hidden.shape[2], None]
        is_bin = torch.arange(self.classes, device=binary.device) < self.bins
        return self.output(hidden).float().masked_fill(is_bin == binary, -torch.inf)


@hookimpl
def register_policy_heads(register):
    register("autoregressive", AutoregressiveHeadConfig, AutoregressiveHead)
