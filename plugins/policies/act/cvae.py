"""The encoder of ACT's conditional variational autoencoder."""

import torch
from torch import Tensor, nn

from core import Generator, masked_mean
from plugins.policies.act.layers import EncoderLayer, Sizes, sines


class CVAE(nn.Module):
    """Reads a chunk of actions, and says what of it the observation does not say: the latent.

    A learned token, the proprioception and the actions are the tokens of a transformer encoder; the
    latent's distribution is read from the learned token (Zhao et al. 2023, appendix C).

    horizon: H, number of actions of a chunk.
    proprio_dim: P; 0 if the encoder does not see the proprioception.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        layers: int,
        latent_width: int,
        horizon: int,
        action_dim: int,
        proprio_dim: int,
    ) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(1, sizes.width))
        self.proprio = nn.Linear(proprio_dim, sizes.width) if proprio_dim else None
        self.actions = nn.Linear(action_dim, sizes.width)
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(layers))
        self.distribution = nn.Linear(sizes.width, 2 * latent_width)
        count = 1 + (proprio_dim > 0) + horizon
        self.positions: Tensor
        positions = sines(torch.arange(count, dtype=torch.float64), sizes.width).float()
        self.register_buffer("positions", positions, persistent=False)

    def forward(
        self, actions: Tensor, counts: Tensor, proprio: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean and the logarithm of the variance of the latents (n Z), float32.

        actions: (n H A), without those that are masked.
        counts: (n H) bool, whether the action counts; one that does not is not seen.
        proprio: (n P), if the encoder sees the proprioception.
        """
        dtype = self.cls.dtype
        tokens = [self.cls.expand(len(actions), 1, -1), self.actions(actions.to(dtype))]
        if self.proprio is not None:
            assert proprio is not None
            tokens.insert(1, self.proprio(proprio.to(dtype)).unsqueeze(1))
        x = torch.cat(tokens, dim=1)  # (n 1+1+H D)
        others = counts.new_ones(len(counts), x.shape[1] - counts.shape[1])
        seen = torch.cat([others, counts], dim=1)[:, None, None]  # (n 1 1 L)
        for layer in self.layers:
            x = layer(x, self.positions, seen)
        mean, log_variance = self.distribution(x[:, 0]).float().chunk(2, dim=-1)
        return mean, log_variance

    def draw(
        self, actions: Tensor, counts: Tensor, proprio: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw the latent of every frame (B T Z), and return the mean of their divergences.

        Frames without an action that counts have no part in the mean.

        actions (B T H A), counts (B T H), proprio (B T P): as for `forward`.
        """
        frames = actions.shape[:2]
        seen = None if proprio is None else proprio.flatten(0, 1)
        mean, log_variance = self(actions.flatten(0, 1), counts.flatten(0, 1), seen)
        noise = generator.normal(*frames, mean.shape[-1])
        latent = mean + (log_variance / 2).exp() * noise.flatten(0, 1)
        kl = masked_mean(divergence(mean, log_variance), counts.flatten(0, 1).any(dim=-1))
        return latent.unflatten(0, frames), kl


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence of each latent (n Z) from the standard normal -> (n)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=-1)
