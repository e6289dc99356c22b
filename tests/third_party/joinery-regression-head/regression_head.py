"""A policy head that regresses each action chunk with a two-layer MLP."""

from dataclasses import dataclass

from torch import nn

from core import PolicyHead, hookimpl, masked_mse


@dataclass(frozen=True)
class RegressionHeadConfig:
    """An MLP over each frame's readout."""

    hidden_size: int = 256
    """width of the hidden layer."""


class RegressionHead(PolicyHead):
    """Regresses the chunk of every frame on its own."""

    def __init__(self, config, *, context, action):
        super().__init__()
        self.shape = (action.horizon, action.dim)
        outputs = action.horizon * action.dim
        self.mlp = nn.Sequential(
            nn.Linear(context.width, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, outputs),
        )

    def forward(self, context, generator):  # readout (B T Q D) -> (B T H A)
        return self.mlp(context.readout.mean(dim=2)).unflatten(-1, self.shape)

    def loss(self, context, batch, generator):
        return {"action": masked_mse(self(context, generator), batch.actions, batch.action_mask)}


@hookimpl
def register_policy_heads(register):
    register("regression", RegressionHeadConfig, RegressionHead)
