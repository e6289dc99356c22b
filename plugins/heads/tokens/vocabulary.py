"""Where action tokens are embedded and scored: in layers of the head, or in the language model.

Both classes have the same two methods. Tokens are numbers from 0 to `count` - 1.
"""

from torch import Tensor, nn

from core import ConfigError, Context, Need

# standard deviation of new embeddings: small, as those of most language models
STD = 0.02


class OwnVocabulary(nn.Module):
    """An output layer that belongs to the head, and an embedding if tokens are read again.

    count: number of tokens (C).
    width: width of the backbone (D).
    embeds: whether there is an embedding, which decoding in parallel does not need.
    """

    needs: frozenset[Need] = frozenset()

    def __init__(self, count: int, width: int, embeds: bool) -> None:
        super().__init__()
        self.output = nn.Linear(width, count)
        self.embedding: nn.Embedding | None = None
        if embeds:
            self.embedding = nn.Embedding(count, width)
            nn.init.normal_(self.embedding.weight, std=STD)

    def embed(self, context: Context, tokens: Tensor) -> Tensor:  # noqa: ARG002 (as the other's)
        """Tokens (B T n) int64 -> inputs of the backbone (B T n D)."""
        assert self.embedding is not None
        embedded: Tensor = self.embedding(tokens)
        return embedded

    def score(self, context: Context, hidden: Tensor) -> Tensor:  # noqa: ARG002 (as the other's)
        """Hidden states (B T n D) -> logits (B T n C), float32."""
        scores: Tensor = self.output(hidden)
        return scores.float()


class LanguageModelVocabulary(nn.Module):
    """The last words of the language model, which OpenVLA and pi0-FAST use as action tokens.

    Token k has the id `last` - k. Only the words that stand for tokens are compared, in training,
    too, so that the model can write no other word; OpenVLA compares all words.

    count: number of tokens (C).
    words: number of words of the language model.
    reserved: number of ids at the end that stand for no token.

    Raises ConfigError if the language model has too few words.
    """

    needs: frozenset[Need] = frozenset({"logits"})

    def __init__(self, count: int, words: int, reserved: int) -> None:
        super().__init__()
        # Core says what to do about a text encoder without an output layer, which has 0 words.
        if 0 < words < count + reserved:
            raise ConfigError(
                f"policy_head.vocabulary: {count} action tokens and {reserved} reserved ids do not "
                f'fit into the {words} words of the text encoder; set vocabulary = "own"'
            )
        self.first, self.last = words - reserved - count, words - reserved - 1

    def embed(self, context: Context, tokens: Tensor) -> Tensor:
        """Tokens (B T n) int64 -> inputs of the backbone (B T n D)."""
        embedded = context.embed(self.last - tokens.flatten(1))
        return embedded.view(*tokens.shape, embedded.shape[-1])

    def score(self, context: Context, hidden: Tensor) -> Tensor:
        """Hidden states (B T n D) -> logits (B T n C), float32."""
        return context.logits(hidden)[..., self.first : self.last + 1].flip(-1).float()


Vocabulary = OwnVocabulary | LanguageModelVocabulary
