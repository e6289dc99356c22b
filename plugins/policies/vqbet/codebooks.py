"""Residual vector quantisation with codebooks that follow what is quantised."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import one_hot

EPSILON = 1e-5  # added to the counts of codes, so that none is divided by zero


class Quantized(NamedTuple):
    """What G codebooks make of n vectors of width W.

    vectors: (n W), sums of codes; gradients pass to what was quantised as if nothing had happened.
    codes: (n G) int64, the index of each in its codebook.
    residuals: (n G W), what each codebook was given.
    distance: (n), mean squared distance of the residuals from their codes, summed over codebooks;
        its gradient moves what was quantised, not the codes.
    """

    vectors: Tensor
    codes: Tensor
    residuals: Tensor
    distance: Tensor


class ResidualCodebooks(nn.ModuleList):
    """Codebooks, each of which quantises what the ones before it leave (Zeghidour et al. 2021).

    The gradient of the sum reaches its input once through each codebook, so that two codebooks
    double it: so it is in vector-quantize-pytorch, which LeRobot's VQ-BeT uses.

    count, size, width: number of codebooks, codes in each, and width of a code.
    decay: see `Codebook`.
    """

    def __init__(self, count: int, size: int, width: int, decay: float) -> None:
        super().__init__(Codebook(size, width, decay) for _ in range(count))

    def __iter__(self) -> Iterator["Codebook"]:
        return super().__iter__()  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Quantized:
        """Quantise vectors (n W) float32."""
        rest, codes, residuals, distances, sums = x, [], [], [], []
        for book in self:
            index = book(rest)
            vectors = book.look_up(index)
            codes.append(index)
            residuals.append(rest)
            distances.append((rest - vectors).square().mean(dim=-1))
            sums.append(rest + (vectors - rest).detach())
            rest = rest - vectors
        return Quantized(
            vectors=torch.stack(sums).sum(dim=0),
            codes=torch.stack(codes, dim=-1),
            residuals=torch.stack(residuals, dim=1),
            distance=torch.stack(distances).sum(dim=0),
        )

    def look_up(self, codes: Tensor) -> Tensor:
        """Codes (... G) int64 -> the sums of their vectors (... W) float32."""
        pairs = zip(self, codes.unbind(dim=-1), strict=True)
        return torch.stack([book.look_up(index) for book, index in pairs]).sum(dim=0)

    def follow(self, quantized: Quantized, counts: Tensor) -> None:
        """Let every codebook follow what it quantised; counts (n) bool: which vectors count."""
        residuals, codes = quantized.residuals.detach().unbind(1), quantized.codes.unbind(1)
        for book, rest, index in zip(self, residuals, codes, strict=True):
            book.follow(rest, index, counts)


class Codebook(nn.Module):
    """Vectors that move to the mean of what is nearest to them (van den Oord et al. 2017).

    Each code is a sum divided by a count, both of which are moving averages over training steps;
    these are buffers, which no optimiser changes. If several processes train, they follow what all
    of them quantise. The counts begin at 1, so that a code which nothing is near stays where it is
    for dozens of steps. (LeRobot's begin at 0, and its first step multiplies such codes by 80,000.)

    decay: share of the averages that a step keeps.
    """

    def __init__(self, size: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        bound = (6 / (size * width)) ** 0.5
        codes = torch.empty(size, width).uniform_(-bound, bound)
        self.codes: Tensor
        self.sums: Tensor
        self.counts: Tensor
        self.register_buffer("codes", codes)
        self.register_buffer("sums", codes.clone())
        self.register_buffer("counts", torch.ones(size))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Vectors (n W) -> the index of the code that is nearest to each, (n) int64."""
        return torch.cdist(x.float(), self.codes.float()).argmin(dim=-1)

    def look_up(self, index: Tensor) -> Tensor:
        """Indices (...) int64 -> vectors (... W) float32."""
        return self.codes[index].float()

    @torch.no_grad()
    def follow(self, x: Tensor, index: Tensor, counts: Tensor) -> None:
        """Move the codes towards the vectors (n W) that are nearest to them, if they count (n)."""
        size = len(self.codes)
        with torch.autocast(x.device.type, enabled=False):
            chosen = one_hot(index, size).to(x.dtype) * counts[:, None]  # (n size)
            new_counts, new_sums = chosen.sum(dim=0), chosen.T @ x
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(new_counts)
            distributed.all_reduce(new_sums)
        self.counts.lerp_(new_counts.to(self.counts), 1 - self.decay)
        self.sums.lerp_(new_sums.to(self.sums), 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + EPSILON) / (total + size * EPSILON) * total
        self.codes.copy_(self.sums / smooth[:, None])
