"""Words of a vision-language model of transformers: its tokenizer, a prompt, and the token
embedding.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core import ConfigError, DataError, TextEncoder, TokenGroup, import_library
from core.weights import Pretrained
from plugins.vlms.huggingface.model import build_share, one_line

IMAGES, INSTRUCTION = "{images}", "{instruction}"


@dataclass(frozen=True)
class TextConfig:
    """The token embedding of a vision-language model, and what is asked with an instruction."""

    model: str = field(metadata={"located": True})
    """folder with config.json and the tokenizer, relative to the recipe's, or a name on the Hugging
    Face hub.
    """
    prompt: str = "{images}{instruction}"
    """text around "{instruction}"; "{images}" marks where the images stand, first unless said.
    Nothing is added: special tokens, that of the beginning too, are written as the model writes
    them.
    """
    output: bool = False
    """hold the model's output layer, for policy heads that score words. Without effect where that
    is the token embedding over again; where it is not, as in LLaVA, it costs as much memory as the
    embedding, and nothing trains it unless a head uses it.
    """

    def __post_init__(self) -> None:
        places = re.findall(r"\{\w*\}", self.prompt)
        if unknown := [place for place in places if place not in (IMAGES, INSTRUCTION)]:
            raise ValueError(f"prompt knows {IMAGES} and {INSTRUCTION}, got {', '.join(unknown)}")
        if places.count(INSTRUCTION) != 1 or places.count(IMAGES) > 1 or places[-1] != INSTRUCTION:
            raise ValueError(
                f"prompt must hold {INSTRUCTION} once, and before it {IMAGES} at most once, got {self.prompt!r}"
            )


class HuggingFaceText(TextEncoder):
    """Embeds the tokens of a prompt, scaled where the model scales them (Gemma does).

    Raises ConfigError where the model or its tokenizer is not to be had, or the prompt has tokens
    without a row in
    the table. `pretrained` takes the model's folder.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.source = config.model
        self.share = build_share(config.model, "text")
        self.embedding: nn.Embedding = self.share.module
        self.width = self.embedding.embedding_dim
        self.cap = getattr(self.share.config.get_text_config(), "final_logit_softcapping", None)
        held = config.output and not self.share.tied
        self.output_share = build_share(config.model, "output") if held else None
        self.output: nn.Linear | None = self.output_share.module if self.output_share else None
        self.prompt = config.prompt if IMAGES in config.prompt else IMAGES + config.prompt
        self.tokenizer, self.marker = _load_tokenizer(config.model)
        ids = self._ids("")
        self.prefix = ids.index(self.marker)
        if lost := sorted({i for i in ids if i != self.marker and not self._has_row(i)}):
            words = ", ".join(map(repr, self.tokenizer.convert_ids_to_tokens(lost)))
            raise ConfigError(
                f"text_encoder.prompt: {words} has no row in the embedding of {self.embedding.num_embeddings} words; "
                f"leave it out (images stand at {IMAGES})"
            )

    def tokenize(self, instruction: str) -> Sequence[int]:
        """Ids of the prompt around an instruction; raises DataError for one that is empty, or
        unknown to the table.
        """
        if not instruction.strip():
            raise DataError(
                f"the instruction {instruction!r} is empty; give every episode an instruction"
            )
        ids = self._ids(instruction)
        del ids[self.prefix]
        if self.marker in ids or not all(map(self._has_row, ids)):
            raise DataError(
                f"the instruction {instruction[:60]!r} has a token that is no word of the model; reword it"
            )
        return ids

    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """ids (B N) int64, mask (B N) bool, True where real -> (B N width)."""
        return TokenGroup(self.embedding(ids), mask)

    @property
    def vocabulary(self) -> int:
        """Words that `logits` scores; 0 where the output layer was left out."""
        if self.output is not None:
            return self.output.out_features
        return self.embedding.num_embeddings if self.share.tied else 0

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B n) int64 -> (B n width), scaled where the model scales them."""
        embedded: Tensor = self.embedding(ids)
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (... width) -> scores of all words (... vocabulary), capped where the model
        caps them.

        ConfigError where the output layer is not the embedding, and the recipe does not say `output
        = true`.
        """
        if self.output is None and not self.share.tied:
            raise ConfigError(
                f"text_encoder.output: a policy head scores words, and the output layer of '{self.source}' is not its "
                "token embedding; set output = true"
            )
        # a table that is scaled on the way in, as Gemma's, is not on the way out
        scores = (
            F.linear(hidden, self.embedding.weight) if self.output is None else self.output(hidden)
        )
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap

    def load_pretrained(self, weights: Pretrained) -> None:
        """Take the token embedding and the output layer, strictly; ConfigError lists whatever does
        not fit.
        """
        self.share.load("text", weights)
        if self.output_share:
            self.output_share.load("output", weights)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as transformers does."""
        return self.share.publish() | (self.output_share.publish() if self.output_share else {})

    def describe(self) -> dict[str, Any]:
        """How many words the model knows."""
        return self.share.description

    def _ids(self, instruction: str) -> list[int]:
        """Ids of the whole prompt, the marker's among them."""
        text = self.prompt.replace(INSTRUCTION, instruction)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _has_row(self, number: int) -> bool:
        return 0 <= number < self.embedding.num_embeddings


def _load_tokenizer(source: str) -> tuple[Any, int]:
    """Return the model's tokenizer and the id of {images} in it.

    As a special token, {images} parts the text as the model's own image token does: no word reaches
    over it, and
    what follows it is no beginning of a text, to which SentencePiece would add a space.
    """
    transformers = import_library("transformers", extra="vlm")
    with one_line(f"text_encoder.model: '{source}' has no tokenizer that transformers can load"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        tokenizer.add_tokens([transformers.AddedToken(IMAGES, normalized=False, special=True)])
    return tokenizer, int(tokenizer.convert_tokens_to_ids(IMAGES))
