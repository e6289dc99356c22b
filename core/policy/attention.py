"""Attention over a sequence and the tokens before it, for the layers of a backbone."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    *,
    past: tuple[Tensor, Tensor] | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Multi-head attention (Vaswani et al. 2017) through PyTorch's fused kernels.

    queries, keys, values: (S K L d); the queries may belong to only R of the L tokens, (S K R d).
    mask: (S 1 L P+L) bool, True if the token of the row sees the token of the column; None for
        causal attention without a past.
    past: the keys (S K P d) and the values (S K P d) of the P tokens before the sequence.
    dropout: the probability that an attention weight is dropped; 0 outside training.

    Returns the mixed values (S L K*d), and the keys and values of all tokens (S K P+L d).
    """
    if past is not None:
        keys = torch.cat([past[0], keys], dim=2)
        values = torch.cat([past[1], values], dim=2)
    mixed = F.scaled_dot_product_attention(
        queries, keys, values, mask, dropout, is_causal=mask is None
    )
    return rearrange(mixed, "s h l d -> s l (h d)"), keys, values
