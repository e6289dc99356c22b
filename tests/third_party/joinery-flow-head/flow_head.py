"""A policy head that samples each action chunk by flow matching, given the frame's readout."""

from dataclasses import dataclass

import torch
from torch import nn

from core import PolicyHead, hookimpl, masked_mean, masked_mean_per_sample


@dataclass(frozen=True)
class FlowHeadConfig:
    """An MLP that predicts the velocity from noise to actions (Lipman et al. 2023)."""

    hidden_size: int = 256
    """width of the two hidden layers."""
    steps: int = 10
    """Euler steps from noise to actions."""


class FlowHead(PolicyHead):
    """Carries noise (time 0) straight to actions (time 1), for every frame on its own.

    In training the share of noise, 1 - time, is Beta(1.5, 1) as in pi0, so that noisy chunks are
    more frequent; in pi0's code time runs the other way. On the way, binary dimensions are -1 and
    1.
    """

    def __init__(self, config, *, context, action):
        super().__init__()
        self.steps, self.shape = config.steps, (action.horizon, action.dim)
        size, hidden = action.horizon * action.dim, config.hidden_size
        self.network = nn.Sequential(
            *(nn.Linear(context.width + size + 1, hidden), nn.GELU()),
            *(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, size)),
        )
        binary = torch.tensor([i in action.binary for i in range(action.dim)])
        self.register_buffer("binary", binary, persistent=False)

    def forward(self, context, generator):  # readout (B T Q D) -> (B T H A)
        x = generator.normal(*context.readout.shape[:2], *self.shape)
        for step in range(self.steps):
            time = x.new_full(x.shape[:2], step / self.steps)
            x = x + self.velocity(context, x, time) / self.steps
        return torch.where(self.binary, ((x + 1) / 2).clamp(0, 1), x)

    def loss(self, context, batch, generator):
        return {"flow": masked_mean(self.errors(context, batch, generator), batch.action_mask)}

    def validation_error(self, context, batch, generator):  # -> (B)
        return masked_mean_per_sample(self.errors(context, batch, generator), batch.action_mask)

    def errors(self, context, batch, generator):  # -> (B T H A)
        actions = torch.where(self.binary, 2 * batch.actions - 1, batch.actions)
        # Masked actions hold anything: they must not enter the noisy chunk.
        actions = actions.masked_fill(~batch.action_mask, 0)
        noise = generator.normal(*actions.shape)
        time = 1 - generator.uniform(*actions.shape[:2]) ** (1 / 1.5)
        noisy = torch.lerp(noise, actions, time[..., None, None])
        return (self.velocity(context, noisy, time) - (actions - noise)) ** 2

    def velocity(self, context, x, time):  # (B T H A), (B T) -> (B T H A)
        readout = context.readout.mean(dim=2)
        inputs = torch.cat([readout, x.flatten(2).to(readout), time[..., None].to(readout)], dim=-1)
        return self.network(inputs).unflatten(-1, self.shape).float()


@hookimpl
def register_policy_heads(register):
    register("small_flow", FlowHeadConfig, FlowHead)
