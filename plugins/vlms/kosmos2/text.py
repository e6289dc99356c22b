"""Kosmos-2's text encoder: SentencePiece with Hugging Face's ids, and the embedding table."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from core import ConfigError, DataError, TextEncoder, TokenGroup
from core.weights import Pretrained
from plugins.vlms.kosmos2.names import SOURCE, TEXT_NAMES, robovlms_names, text_tensors

BEGIN, PADDING, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"
TAGS = (
    "</doc>",
    "<image>",
    "</image>",
    "</chunk>",
    "</line>",
    "<phrase>",
    "</phrase>",
    "<object>",
    "</object>",
    "</delimiter_of_multi_objects/>",
    "<grounding>",
    *(f"<patch_index_{i:04}>" for i in range(1024)),
)
IMAGES, INSTRUCTION = "{images}", "{instruction}"


@dataclass(frozen=True)
class Kosmos2TextConfig:
    """The embedding table of Kosmos-2, and the prompt around an instruction."""

    model: Path
    """SentencePiece model of Kosmos-2, sentencepiece.bpe.model in its repository."""
    prompt: str = "<s>{images}<grounding>An image of a robot {instruction}"
    """text around "{instruction}"; "{images}" marks where the images stand. By default they stand
    after <s>, as in RoboVLMs.
    """
    width: Annotated[int, Gt(0)] = 2048
    """width of every token (D)."""
    vocabulary: Annotated[int, Gt(0)] = 65_037
    """number of rows in the embedding table."""
    max_tokens: Annotated[int, Gt(0)] = 256
    """maximum number of tokens in a prompt."""

    def __post_init__(self) -> None:
        if self.prompt.count(INSTRUCTION) != 1 or self.prompt.count(IMAGES) > 1:
            raise ValueError(
                f"prompt must hold {INSTRUCTION} once and {IMAGES} at most once, "
                f"got {self.prompt!r}"
            )
        if INSTRUCTION in self.prompt.partition(IMAGES)[0] and IMAGES in self.prompt:
            raise ValueError(f"prompt must hold {INSTRUCTION} behind {IMAGES}, got {self.prompt!r}")


class Kosmos2Text(TextEncoder):
    """Embeds a prompt's pieces; the backbone scales the embeddings later.

    Ids are those of Hugging Face: <s>, <pad>, </s>, <unk>, the pieces, <mask>, then tags and patch
    indices. `pretrained` takes Kosmos-2's weights as Hugging Face publishes them, or a RoboVLMs
    .ckpt.

    Raises DataError if the .model cannot be read, and ConfigError if the embedding table has too
    few rows for all ids.
    """

    source = SOURCE

    def __init__(self, config: Kosmos2TextConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.processor = _load_model(config.model)
        self.special = _special_ids(self.processor.get_piece_size())
        if (needed := max(self.special.values()) + 1) > config.vocabulary:
            raise ConfigError(
                f"text_encoder.vocabulary: '{config.model}' needs {needed} rows, "
                f"got {config.vocabulary}"
            )
        before, images, self.question = config.prompt.rpartition(IMAGES)
        self.prefix_ids = list(self._ids(before)) if images else []
        self.prefix = len(self.prefix_ids)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.vocabulary = config.vocabulary
        self.unknown_id = self.special[UNKNOWN]

    def tokenize(self, instruction: str) -> Sequence[int]:
        """Return the ids of the prompt around an instruction.

        Raises DataError for an instruction that is empty, too long or no valid Unicode.
        """
        if not instruction.strip():
            raise DataError(
                f"the instruction {instruction!r} is empty; give every episode an instruction"
            )
        try:
            ids = [*self.prefix_ids, *self._ids(self.question.replace(INSTRUCTION, instruction))]
        except (RuntimeError, UnicodeError) as error:  # UTF-8 cannot encode a lone surrogate
            raise DataError(
                f"the instruction {instruction[:60]!r} is no valid Unicode; write it again"
            ) from error
        if len(ids) > self.config.max_tokens:
            raise DataError(
                f"the prompt of '{' '.join(instruction[:60].split())}...' has {len(ids)} tokens "
                f"and text_encoder.max_tokens is {self.config.max_tokens}; shorten it or raise "
                "text_encoder.max_tokens"
            )
        return ids

    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """Embed ids (B N) int64 with mask (B N) bool, True for real tokens -> (B N width)."""
        return TokenGroup(self.embedding(ids), mask)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B n) int64 -> (B n width)."""
        embeddings: Tensor = self.embedding(ids)
        return embeddings

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (... width) -> scores of all words (... vocabulary).

        The output layer is the embedding table.
        """
        return F.linear(hidden, self.embedding.weight)

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the token embedding, strictly.

        Tensors of the source that belong to none of the three parts are reported here as
        unexpected.
        """
        TEXT_NAMES.load(self, text_tensors(weights), weights.source)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as Hugging Face does."""
        return TEXT_NAMES.publish(self.state_dict())

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return robovlms_names(self.publish())

    def publish_files(self, folder: Path) -> None:
        """Copy the SentencePiece model under the name that it has in Kosmos-2's repository."""
        shutil.copyfile(self.config.model, folder / "sentencepiece.bpe.model")

    def describe(self) -> dict[str, Any]:
        """Return the part of Kosmos2Config for text: the kind of model, the vocabulary's size."""
        text = {
            "vocab_size": self.config.vocabulary,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        }
        return {
            "model_type": "kosmos-2",
            "architectures": ["Kosmos2ForConditionalGeneration"],
            "tie_word_embeddings": True,
            "text_config": text,
        }

    def _ids(self, text: str) -> Iterator[int]:
        """Yield the ids of special tokens, and the ids of the pieces of the text between them."""
        for word in re.split(f"({'|'.join(map(re.escape, self.special))})", text):
            if word in self.special:
                yield self.special[word]
            else:
                for piece in self.processor.encode(word):
                    # SentencePiece has <unk> at id 0 and pieces from id 3 on; Hugging Face's <pad>
                    # raises the ids of the pieces by 1.
                    yield piece + 1 if piece else self.special[UNKNOWN]


def _special_ids(pieces: int) -> dict[str, int]:
    """Return {token: id} of the special tokens; SentencePiece gives most of them other ids or none.

    pieces: number of pieces in the SentencePiece model, including <unk>, <s> and </s>.
    """
    first = {BEGIN: 0, PADDING: 1, END: 2, UNKNOWN: 3}
    return first | {tag: pieces + 1 + i for i, tag in enumerate(("<mask>", *TAGS))}


def _load_model(path: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"text_encoder.model: '{path}' cannot be read as a SentencePiece model; "
            f"Kosmos-2's is sentencepiece.bpe.model in {SOURCE}"
        ) from error
