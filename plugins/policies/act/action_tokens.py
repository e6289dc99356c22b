"""ACT's tokens: a latent and the proprioception before the images' tokens, with their positions."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from core import (
    ActionDimensions,
    ActionSpec,
    ActionTokens,
    Batch,
    ConfigError,
    Generator,
    TokenGroup,
    TokenKind,
    TokenSequence,
)
from core.weights import LeRobotFiles, Pretrained
from plugins.policies.act.cvae import CVAE
from plugins.policies.act.layers import Sizes
from plugins.policies.act.names import ACTION_TOKEN_NAMES, action_token_tensors
from plugins.policies.act.pieces import (
    Piece,
    image_piece,
    pack_frames,
    text_pieces,
    token_piece,
)


@dataclass(frozen=True)
class ACTTokensConfig:
    """The latent, and the encoder of target actions from which it comes in training.

    The defaults are those of Zhao et al. 2023, as in LeRobot.
    """

    proprio: bool = True
    """whether each frame has a token that is projected from the proprioception."""
    cvae: bool = True
    """whether an encoder of the target actions gives the latent in training; if not, the latent is
    zero in training, too, and `layers` and the keys below it have no effect.
    """
    latent_width: Annotated[int, Gt(0)] = 32
    """number of dimensions of the latent."""
    layers: Annotated[int, Gt(0)] = 4
    """number of layers of the encoder of target actions."""
    heads: Annotated[int, Gt(0)] = 8
    """number of attention heads per layer; must be a divisor of the backbone's width."""
    mlp_width: Annotated[int, Gt(0)] = 3200
    """width of the hidden layer of each layer's MLP."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """probability of dropout in the layers while training."""
    kl_weight: Annotated[float, Ge(0)] = 10.0
    """factor of the latent's KL divergence from the standard normal in the sum of the losses."""


class ACTTokens(ActionTokens):
    """Lays out each frame as one sequence, in which all tokens see one another.

    A sequence is: the text's prefix, the latent, the proprioception, the images, the words. ACT
    itself has no words: set the text encoder "none". The latent's token is the only action token,
    for heads that read action tokens. In training the latent is drawn from the distribution that
    the CVAE infers from the target actions; the term "kl" keeps it near the standard normal, and
    while acting the latent is zero, the mean of that.

    Every token has a `position_embedding`: a learned one for latent and proprioception, sines of
    row and column for tokens of images whose encoder gives a grid, sines of the index for words.

    `pretrained` takes weights of LeRobot's ACT.

    Raises ConfigError if the width is no multiple of 4 or of `heads`, or if `proprio` is true and
    the data record no proprioception.
    """

    source = None  # `pretrained = true` is refused: LeRobot publishes many
    causal = False
    count = 1

    def __init__(
        self,
        config: ACTTokensConfig,
        *,
        width: int,
        action: ActionSpec,
        proprio_dim: int,
        text_prefix: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(config, width, proprio_dim)
        self.text_prefix, self.kl_weight = text_prefix, config.kl_weight
        self.latent_projection = nn.Linear(config.latent_width, width)
        proprio_dim = proprio_dim if config.proprio else 0
        self.proprio_projection = nn.Linear(proprio_dim, width) if proprio_dim else None
        self.positions = nn.Parameter(torch.randn(1 + (proprio_dim > 0), width))
        self.cvae = (
            CVAE(
                Sizes(width, config.heads, config.mlp_width, config.dropout),
                layers=config.layers,
                latent_width=config.latent_width,
                horizon=action.horizon,
                action_dim=action.dim,
                proprio_dim=proprio_dim,
            )
            if config.cvae
            else None
        )
        if self.cvae is None:
            self.latent_projection.weight.requires_grad_(False)  # of a latent that is always zero
        self.dimensions = ActionDimensions(action)
        self.assumptions: tuple[str, ...] = ()

    def layout(
        self,
        vision: TokenGroup,
        text: TokenGroup,
        proprio: Tensor | None,
        batch: Batch | None,
        generator: Generator,
    ) -> TokenSequence:
        """Lay out vision (B T N D), text (B M D) and proprio (B T P) as B T sequences."""
        lead = vision.tokens.shape[:2]
        latent, losses = self._draw_latent(lead, proprio, batch, generator)
        latent_token = token_piece(
            self.latent_projection(latent), TokenKind.ACTION, self.positions[:1]
        )
        prefix, words = text_pieces(text, lead[1], self.text_prefix)
        sequence = pack_frames(
            [prefix, latent_token, *self._proprio(proprio), image_piece(vision), words],
            lead,
            readout=self.text_prefix,
        )
        return replace(sequence, losses=losses)

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the latent's, the proprioception's and the CVAE's weights, strictly."""
        ACTION_TOKEN_NAMES.load(self, action_token_tensors(weights), weights.source)
        self.assumptions = LeRobotFiles(weights).describe_expected(
            "observation.state", "proprioception"
        )

    def _draw_latent(
        self,
        lead: torch.Size,
        proprio: Tensor | None,
        batch: Batch | None,
        generator: Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the latent of each frame (B T Z), and in training its divergence as a loss."""
        weight = self.latent_projection.weight
        zeros = weight.new_zeros(*lead, weight.shape[1])
        if self.cvae is None or batch is None:
            return zeros, {}
        if batch.actions is None or batch.action_mask is None:
            return zeros, {"kl": 0 * self.cvae.cls.float().sum()}
        chunks = self.dimensions.signed(batch.actions, batch.action_mask)
        seen = None if self.proprio_projection is None else _present(proprio)
        latent, kl = self.cvae.draw(chunks, batch.action_mask.any(dim=-1), seen, generator)
        return latent.to(weight.dtype), {"kl": self.kl_weight * kl}

    def _proprio(self, proprio: Tensor | None) -> list[Piece]:
        """Proprioception (B T P) -> one token per frame, or nothing if the recipe has none."""
        if self.proprio_projection is None:
            return []
        numbers = _present(proprio).to(self.proprio_projection.weight.dtype)
        token = self.proprio_projection(numbers)
        return [token_piece(token, TokenKind.PROPRIO, self.positions[1:])]


def _check_sizes(config: ACTTokensConfig, width: int, proprio_dim: int) -> None:
    """Raise ConfigError for sizes that do not fit."""
    if config.proprio and proprio_dim == 0:
        raise ConfigError(
            "action_tokens.proprio is true, and the data record no proprioception; set it to false"
        )
    if width % 4:
        raise ConfigError(
            f"backbone.width: {width} is no multiple of 4, as action_tokens 'act' needs for sines "
            "of rows and columns; choose one"
        )
    if config.cvae and width % config.heads:
        raise ConfigError(
            f"action_tokens.heads: {config.heads} does not divide the backbone's width, {width}; "
            "choose a divisor"
        )


def _present(proprio: Tensor | None) -> Tensor:
    if proprio is None:
        raise ValueError(
            "the batch has no proprioception, and action_tokens.proprio is true: "
            "the batch must hold (B T P)"
        )
    return proprio
