"""The text encoder of a vision-language model: its tokenizer, a prompt and the token embedding."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core import ConfigError, DataError, TextEncoder, TokenGroup, import_library
from core.weights import Pretrained
from plugins.vlms.huggingface.configuration import as_config_error
from plugins.vlms.huggingface.model import build_part, robovlms_names

IMAGES, INSTRUCTION = "{images}", "{instruction}"


@dataclass(frozen=True)
class TextConfig:
    """The token embedding of a vision-language model, and the prompt around an instruction."""

    model: str = field(metadata={"located": True})
    """folder that holds config.json and the tokenizer (a relative path starts at the recipe's
    folder), or the name of a model on the Hugging Face hub.
    """
    prompt: str = "{images}{instruction}"
    """text around "{instruction}"; "{images}" marks where the images stand. Without "{images}", the
    images stand before the text. No special tokens are added, not even one at the beginning: write
    special tokens into the prompt, in the model's own spelling.
    """
    output: bool = False
    """whether to load the model's output layer, for policy heads that score words. This has no
    effect if the output layer is the token embedding. A separate output layer, as in LLaVA, takes
    as much memory as the embedding, and it trains only if a head uses it.
    """

    def __post_init__(self) -> None:
        names = re.findall(r"\{\w*\}", self.prompt)
        if unknown := [name for name in names if name not in (IMAGES, INSTRUCTION)]:
            raise ValueError(f"prompt knows {IMAGES} and {INSTRUCTION}, got {', '.join(unknown)}")
        if names.count(INSTRUCTION) != 1 or names.count(IMAGES) > 1 or names[-1] != INSTRUCTION:
            raise ValueError(
                f"prompt must hold {INSTRUCTION} once, and before it {IMAGES} at most once, "
                f"got {self.prompt!r}"
            )


class HuggingFaceText(TextEncoder):
    """Embeds the tokens of a prompt, and scales the embeddings if the model does, as in Gemma.

    To load the model's published weights, set `pretrained` in the recipe to true, or to the same
    folder as `model`.

    Raises ConfigError if the model or its tokenizer cannot be loaded, or if the embedding has no
    row for a token of the prompt.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.source = config.model
        self.part = build_part(config.model, "text")
        self.embedding: nn.Embedding = self.part.module
        self.width = self.embedding.embedding_dim
        self.cap = getattr(self.part.config.get_text_config(), "final_logit_softcapping", None)
        has_output = config.output and not self.part.tied
        self.output_part = build_part(config.model, "output") if has_output else None
        self.output: nn.Linear | None = self.output_part.module if self.output_part else None
        self.prompt = config.prompt if IMAGES in config.prompt else IMAGES + config.prompt
        self.tokenizer, self.marker = _load_tokenizer(config.model)
        ids = self._ids("")
        self.prefix = ids.index(self.marker)
        if unknown := sorted({i for i in ids if i != self.marker and not self._has_row(i)}):
            words = ", ".join(map(repr, self.tokenizer.convert_ids_to_tokens(unknown)))
            raise ConfigError(
                f"text_encoder.prompt: {words} has no row in the embedding of "
                f"{self.embedding.num_embeddings} words; leave it out (images stand at {IMAGES})"
            )

    def tokenize(self, instruction: str) -> Sequence[int]:
        """Return the ids of the prompt around an instruction.

        Raises DataError for an instruction that is empty, contains {images}, or has a token without
        an embedding.
        """
        if not instruction.strip():
            raise DataError(
                f"the instruction {instruction!r} is empty; give every episode an instruction"
            )
        ids = self._ids(instruction)
        del ids[self.prefix]
        if self.marker in ids or not all(map(self._has_row, ids)):
            raise DataError(
                f"the instruction {instruction[:60]!r} has a token that is no word of the model; "
                "reword it"
            )
        return ids

    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """Embed ids (B N) int64 with mask (B N) bool, True for real tokens -> (B N width)."""
        return TokenGroup(self.embedding(ids), mask)

    @property
    def unknown_id(self) -> int | None:
        """Id of the token for words that the tokenizer does not know; None if there is none."""
        unknown: int | None = self.tokenizer.unk_token_id
        return unknown

    @property
    def vocabulary(self) -> int:
        """Number of words that `logits` scores; 0 if the output layer was left out."""
        if self.output is not None:
            return self.output.out_features
        return self.embedding.num_embeddings if self.part.tied else 0

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B n) int64 -> (B n width), scaled if the model scales them."""
        embeddings: Tensor = self.embedding(ids)
        return embeddings

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (... width) -> scores of all words (... vocabulary).

        The scores are capped if the model caps scores.

        Raises ConfigError if `output` is false and the output layer is not the embedding.
        """
        if self.output is None and not self.part.tied:
            raise ConfigError(
                "text_encoder.output: a policy head scores words, and the output layer of "
                f"'{self.source}' is not its token embedding; set output = true"
            )
        # Gemma scales its embedding when it embeds tokens, but not when it scores words.
        scores = (
            F.linear(hidden, self.embedding.weight) if self.output is None else self.output(hidden)
        )
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the token embedding and the output layer, strictly.

        Raises ConfigError that lists what does not fit.
        """
        self.part.load("text", weights)
        if self.output_part:
            self.output_part.load("output", weights)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as transformers does."""
        return self.part.publish() | (self.output_part.publish() if self.output_part else {})

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return robovlms_names(self.publish())

    def describe(self) -> dict[str, Any]:
        """Return what config.json says about the text part: the size of the vocabulary."""
        return self.part.description

    def publish_files(self, folder: Path) -> None:
        """Write the tokenizer's files, as transformers does."""
        transformers = import_library("transformers", extra="vlm")
        with as_config_error(f"text_encoder.model: cannot write the tokenizer of '{self.source}'"):
            # read again, because `self.tokenizer` has a further word, {images}
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.source, trust_remote_code=False
            )
            tokenizer.save_pretrained(folder)

    def _ids(self, instruction: str) -> list[int]:
        """Return the ids of the whole prompt, including the id that marks the images."""
        text = self.prompt.replace(INSTRUCTION, instruction)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _has_row(self, id_: int) -> bool:
        return 0 <= id_ < self.embedding.num_embeddings


def _load_tokenizer(source: str) -> tuple[Any, int]:
    """Return the model's tokenizer, and the id that it gives to {images}.

    {images} becomes a special token, so that it divides the text as the model's own image token
    does. No token contains text from both sides of {images}. SentencePiece adds a space at the
    beginning of the whole text, but none at the beginning of the text after {images}.
    """
    transformers = import_library("transformers", extra="vlm")
    with as_config_error(
        f"text_encoder.model: '{source}' has no tokenizer that transformers can load"
    ):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        _check_vocabulary(tokenizer, source)
        tokenizer.add_tokens([transformers.AddedToken(IMAGES, normalized=False, special=True)])
    return tokenizer, int(tokenizer.convert_tokens_to_ids(IMAGES))


def _check_vocabulary(tokenizer: Any, source: str) -> None:
    """Raise ConfigError if a tokenizer has no words.

    For some models, transformers makes an empty tokenizer if a folder has no files of one. It turns
    every text into no tokens.
    """
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ConfigError(
            f"text_encoder.model: the tokenizer in '{source}' has no words; put the tokenizer's "
            "files (tokenizer.json and tokenizer_config.json, for example) there, from the folder "
            "or the repository that the model came from"
        )
