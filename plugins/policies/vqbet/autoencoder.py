"""The autoencoder of action chunks, whose bottleneck is a few codes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core import build_mlp
from plugins.policies.vqbet.codebooks import ResidualCodebooks


class Coded(NamedTuple):
    """What an autoencoder makes of n chunks.

    decoded: (n h A) float32, the chunks as their codes tell them.
    distance: (n) float32, of the encoder's output from its codes.
    """

    decoded: Tensor
    distance: Tensor


class ActionAutoencoder(nn.Module):
    """Encodes chunks of h actions as G codes, and decodes them (Lee et al. 2024, section 3.2).

    Encoder and decoder are MLPs with two hidden layers.

    shape: (h, A).
    hidden: width of the hidden layers.
    codebooks: G codebooks, with codes of `width`.
    """

    def __init__(
        self, shape: tuple[int, int], *, hidden: int, width: int, codebooks: ResidualCodebooks
    ) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = build_mlp([shape[0] * shape[1], hidden, hidden, width], "relu")
        self.codebooks = codebooks
        self.decoder = build_mlp([width, hidden, hidden, shape[0] * shape[1]], "relu")

    def forward(self, chunks: Tensor, counts: Tensor) -> Coded:
        """Encode and decode chunks (n h A); in training mode, the codebooks follow them.

        counts: (n) bool, whether the codebooks follow a chunk.
        """
        quantized = self.codebooks(self._encode(chunks))
        if self.training:
            self.codebooks.follow(quantized, counts)
        return Coded(self._decode(quantized.vectors), quantized.distance)

    @torch.no_grad()
    def encode(self, chunks: Tensor) -> Tensor:
        """Chunks (... h A) -> their codes (... G) int64; the codebooks stay as they are."""
        codes: Tensor = self.codebooks(self._encode(chunks.flatten(0, -3))).codes
        return codes.view(*chunks.shape[:-2], -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (... G) -> chunks (... h A) float32."""
        return self._decode(self.codebooks.look_up(codes))

    def _encode(self, chunks: Tensor) -> Tensor:
        """(n h A) -> (n W) float32."""
        dtype = next(self.encoder.parameters()).dtype
        return self.encoder(chunks.flatten(1).to(dtype)).float()  # type: ignore[no-any-return]

    def _decode(self, vectors: Tensor) -> Tensor:
        """(... W) -> (... h A) float32."""
        dtype = next(self.decoder.parameters()).dtype
        decoded: Tensor = self.decoder(vectors.to(dtype)).float()
        return decoded.view(*vectors.shape[:-1], *self.shape)
