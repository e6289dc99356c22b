"""How the tokens of a chunk are predicted: all at once, or one after another.

Both classes have the same two methods. `logits` scores given tokens for training; `decode` writes
tokens, and lets its argument `choose` choose each of them from its logits.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core import ConfigError, Context, ContextSpec, Need, build_mlp
from plugins.heads.tokens.vocabulary import STD, Vocabulary

# (logits (B T n C), index of the first of these n tokens in the chunk) -> tokens (B T n) int64
Choose = Callable[[Tensor, int], Tensor]


class ParallelDecoder(nn.Module):
    """Predicts all tokens of a frame at once from its readout (B T Q D).

    If there is an action token for each token (Q = n), its hidden state is scored as it is, as in
    OpenVLA-OFT (Kim et al. 2025). If there are fewer, each predicts n / Q tokens: an embedding of
    the token's place is added to the hidden state, and an MLP of one hidden layer follows. Given
    the readout, the tokens are independent of one another.

    length: number of tokens in a chunk (n).

    Raises ConfigError unless Q divides n.
    """

    needs: frozenset[Need] = frozenset()

    def __init__(self, vocabulary: Vocabulary, length: int, context: ContextSpec) -> None:
        super().__init__()
        count, width = context.action_tokens, context.width
        if count == 0 or length % count:
            raise ConfigError(
                f"policy_head.decode: {count} action tokens cannot predict the {length} tokens of "
                f"a chunk in parallel; set action_tokens.count = 1 or {length}, or decode = "
                '"autoregressive"'
            )
        self.vocabulary, self.copies = vocabulary, length // count
        self.place: nn.Parameter | None = None
        if self.copies > 1:
            self.place = nn.Parameter(torch.randn(length, width))  # as large as the readout
            self.mlp = build_mlp([width, width, width])

    def logits(self, context: Context, tokens: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return the logits of all tokens (B T n C), which depend on no token."""
        hidden = context.readout
        if self.place is not None:
            hidden = self.mlp(hidden.repeat_interleave(self.copies, dim=2) + self.place)
        return self.vocabulary.score(context, hidden)

    def decode(self, context: Context, choose: Choose, end: int | None = None) -> Tensor:  # noqa: ARG002
        """Return tokens (B T n) int64."""
        return choose(self.logits(context), 0)


class AutoregressiveDecoder(nn.Module):
    """Predicts each token from the observation and all tokens before it, as OpenVLA and RT-2 do.

    The backbone reads a learned start token and then the tokens, each with an embedding of its
    place added. Writing a chunk costs a short pass of the backbone per token, because the keys and
    values of all earlier tokens are kept.

    length: number of tokens in a chunk (n).
    """

    needs: frozenset[Need] = frozenset({"extend"})

    def __init__(self, vocabulary: Vocabulary, length: int, context: ContextSpec) -> None:
        super().__init__()
        self.vocabulary, self.length = vocabulary, length
        # The first is the start token. The others begin at zero, which leaves the embeddings of a
        # pretrained language model as they are.
        place = torch.zeros(length, context.width)
        nn.init.normal_(place[:1], std=STD)
        self.place = nn.Parameter(place)

    def logits(self, context: Context, tokens: Tensor) -> Tensor:
        """Return the logits of given tokens (B T n), each given those before it -> (B T n C)."""
        before = self.vocabulary.embed(context, tokens[..., :-1])
        hidden, _ = context.extend(F.pad(before, (0, 0, 1, 0)) + self.place)
        return self.vocabulary.score(context, hidden)

    def decode(self, context: Context, choose: Choose, end: int | None = None) -> Tensor:
        """Write tokens (B T m) int64; m = n, or less once every frame has written `end`.

        What a frame writes after its first `end` means nothing.
        """
        inputs = self.place[:1].expand(*context.frame.shape, 1, -1)
        has_ended = torch.zeros_like(context.frame, dtype=torch.bool)[..., None]
        tokens: list[Tensor] = []
        for place in range(self.length):
            if tokens:
                inputs = self.vocabulary.embed(context, tokens[-1]) + self.place[place]
            hidden, context = context.extend(inputs)
            tokens.append(choose(self.vocabulary.score(context, hidden), place))
            if end is not None:
                has_ended = has_ended | (tokens[-1] == end)
                if bool(has_ended.all()):
                    break
        return torch.cat(tokens, dim=2)
